// The list of streams.

const MOST = 200;
const troubled = (line) =>
  (line.state === "held at source" ? 4 : 0) + 2 * line.held_share + line.rollbacks / (1 + line.rollbacks) +
  line.refused / Math.max(1, line.batches);
const byName = (a, b) => (a.stream < b.stream ? -1 : a.stream > b.stream ? 1 : 0);
const ORDERS = {
  trouble: (a, b) => troubled(b) - troubled(a) || byName(a, b),
  stream: byName,
  updates: (a, b) => b.updates - a.updates || byName(a, b),
};

const condition = (state) =>
  element("span", { class: `state ${state === "adapting" ? "" : state === "frozen" ? "frozen" : "held"}` }, state);

function row(line, chosen) {
  const facts = [`version ${number(line.version)}`, many(line.updates, "update")];
  if (line.held_share > 0) facts.push(`${share(line.held_share)} held`);
  if (line.rollbacks > 0) facts.push(many(line.rollbacks, "rollback"));
  return element("li", {},
    element("button", { type: "button", "data-stream": line.stream, "aria-current": String(line.stream === chosen),
        title: line.stream, onclick: () => { location.hash = encodeURIComponent(line.stream); } },
      element("span", { class: "id" }, line.stream), condition(line.state),
      element("span", { class: "quiet" }, facts.join(" · "))));
}

function list(lines, chosen) {
  const sought = find("search").value.trim().toLowerCase();
  const found = lines.filter((line) => line.stream.toLowerCase().includes(sought)).sort(ORDERS[find("order").value]);
  const held = document.activeElement?.dataset?.stream;
  find("streams").replaceChildren(...found.slice(0, MOST).map((line) => row(line, chosen)));
  if (held !== undefined)
    [...find("streams").querySelectorAll("button")].find((each) => each.dataset.stream === held)?.focus();
  const more = found.length > MOST ? `, the first ${MOST} are shown` : "";
  find("count").textContent = lines.length
    ? `${number(found.length)} of ${number(lines.length)} streams${more}`
    : "No stream has sent anything yet.";
}
