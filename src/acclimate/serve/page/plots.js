// One small plot per quantity: the last points from left to right, updates as ticks, versions set by hand as marks.

const KNOWN = [
  ["entropy", "Entropy of answers", "nats"],
  ["distance", "Distance from source", ""],
  ["held", "Share held at source", "", [0, 1]],
  ["loss", "Loss", ""],
];
const NO_QUANTITY = new Set(["time", "version", "updated"]);
const MOST_PLOTS = 16;
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 130, 48, 6, 8, 24];

// What each method and guard tells of its steps differs: whatever has numbers is plotted, what is known comes first.
function quantities(history) {
  const names = new Set(history.flatMap((point) => Object.keys(point).filter((name) => typeof point[name] === "number")));
  const known = KNOWN.filter(([name]) => names.delete(name));
  const others = [...names].filter((name) => !NO_QUANTITY.has(name));
  return [...known, ...others.map((name) => [name, words(name), ""])].slice(0, MOST_PLOTS);
}

// A point without word of an update is a version that a verb has published: a rollback or a reset.
const byVerb = (point) => typeof point.updated !== "number";

function range(values, given) {
  if (given) return given;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = high > low ? 0.06 * (high - low) : 0.5 * Math.abs(high) || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

function plot(history, [name, title, unit, given]) {
  const values = history.map((point) => point[name]).filter((value) => typeof value === "number");
  const [low, high] = range(values, given);
  const across = WIDTH - LEFT - RIGHT;
  const x = (place) => LEFT + (history.length > 1 ? (across * place) / (history.length - 1) : across / 2);
  const y = (value) => TOP + ((high - value) * (HEIGHT - TOP - BOTTOM)) / (high - low);
  const floor = HEIGHT - BOTTOM;

  let path = "";
  let broken = true;
  const dots = [];
  history.forEach((point, place) => {
    if (byVerb(point)) return;
    if (typeof point[name] !== "number") { broken = true; return; }
    path += `${broken ? "M" : "L"}${x(place).toFixed(1)} ${y(point[name]).toFixed(1)}`;
    broken = false;
  });
  if (values.length === 1) {
    const place = history.findIndex((point) => typeof point[name] === "number");
    dots.push(shape("circle", { class: "dot", cx: x(place), cy: y(values[0]), r: 2.5 }));
  }
  const ticks = history.flatMap((point, place) =>
    point.updated === 1 ? [shape("line", { class: "updated", x1: x(place), x2: x(place), y1: floor + 2, y2: floor + 7 })] : []);
  const marks = history.flatMap((point, place) =>
    byVerb(point)
      ? [shape("g", { class: "mark" },
          shape("line", { class: "verb", x1: x(place), x2: x(place), y1: TOP, y2: floor }),
          shape("path", { class: "arrow", d: `M${x(place) - 5} ${TOP - 4}l10 -4v8z` }))]
      : []);

  const latest = `${number(values.at(-1))}${unit ? ` ${unit}` : ""}`;
  const told = element("output", {}, latest);
  const cross = shape("line", { class: "cross", y1: TOP, y2: floor, visibility: "hidden" });
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "data-quantity": name,
      "aria-label": `${title}: ${values.length} values from ${number(Math.min(...values))} to ${number(Math.max(...values))}, now ${latest}` },
    shape("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: floor, y2: floor }),
    shape("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: TOP, y2: TOP }),
    shape("text", { x: LEFT - 4, y: TOP + 4, "text-anchor": "end" }, number(high)),
    shape("text", { x: LEFT - 4, y: floor + 3, "text-anchor": "end" }, number(low)),
    shape("text", { x: LEFT, y: HEIGHT - 4 }, clock(history[0].time)),
    shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, clock(history.at(-1).time)),
    shape("path", { class: "series", d: path }), ...dots, ...ticks, ...marks, cross);

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const part = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / across;
    const place = Math.max(0, Math.min(history.length - 1, Math.round(part * (history.length - 1))));
    cross.setAttribute("x1", x(place));
    cross.setAttribute("x2", x(place));
    cross.setAttribute("visibility", "visible");
    told.textContent = `${number(history[place][name])} · version ${number(history[place].version)} · ${clock(history[place].time)}`;
  });
  svg.addEventListener("pointerleave", () => {
    cross.setAttribute("visibility", "hidden");
    told.textContent = latest;
  });
  return element("figure", {}, element("figcaption", {}, element("h3", {}, title), told), svg);
}

function plots(history) {
  const shown = quantities(history);
  if (!shown.length) return [element("p", { class: "empty" }, "Nothing has been learned yet, so there is nothing to plot.")];
  return [
    element("div", { class: "plots" }, ...shown.map((quantity) => plot(history, quantity))),
    element("p", { class: "quiet key" }, `The last ${history.length} points. `,
      element("b", { class: "updated" }, "|"), " updated  ", element("b", { class: "verb" }, "◂"), " rolled back or reset"),
  ];
}
