// One stream.

function versions(name, kept) {
  const rows = kept.toReversed().map((each) =>
    element("tr", {},
      element("td", {}, number(each.version)),
      element("td", { class: "id" }, each.name ?? "–"),
      element("td", {}, each.bytes === null ? "on disk" : bytes(each.bytes)),
      element("td", {}, each.current
        ? "current"
        : element("button", { type: "button", "data-version": each.version,
            onclick: () => question(`Roll ${name} back to version ${each.version}?`,
              "Its state is published again under a new number. What was learned since is not used any more.",
              () => command(name, "rollback", { version: each.version })) }, "Roll back"))));
  const head = ["version", "name", "size", ""].map((text) => element("th", { scope: "col" }, text));
  return element("div", { class: "versions" }, element("h3", {}, "Kept versions"),
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}

function buttons(name, status) {
  const press = (id, text, act) => element("button", { type: "button", id, onclick: act }, text);
  return element("div", { class: "buttons" },
    press("keep", "Keep version", () =>
      question(`Keep version ${status.version} of ${name}?`, "A named version stays until its name is given to another.",
        (label) => command(name, "snapshots", { name: label }), true)),
    press("freeze", status.frozen ? "Unfreeze" : "Freeze", () =>
      question(`${status.frozen ? "Unfreeze" : "Freeze"} ${name}?`,
        status.frozen ? "It learns again." : "It answers with what it has learned, and learns no more.",
        () => command(name, "freeze", { frozen: !status.frozen }))),
    press("reset", "Reset", () =>
      question(`Reset ${name} to the source?`, "A new version that has learned nothing is published.",
        () => command(name, "reset", {}))));
}

function numbers(status) {
  const plotted = new Set(quantities(status.history).map(([name]) => name));
  const facts = [
    ["version", number(status.version)], ["batches", number(status.batches)], ["updates", number(status.updates)],
    ["refused", number(status.refused)], ["dropped", number(status.dropped)],
    ["rollbacks", number(status.rollbacks)], ["resets", number(status.resets)],
    ["held at source", share(status.held_share)], ["state", bytes(status.bytes)],
    ...Object.entries(status.signals)
      .filter(([signal]) => !plotted.has(signal))
      .map(([signal, value]) => [words(signal).toLowerCase(), number(value)]),
  ];
  return element("dl", { class: "numbers" },
    ...facts.map(([word, value]) => element("div", {}, element("dt", {}, word), element("dd", {}, value))));
}

function detail(name, status, kept) {
  find("stream").replaceChildren(
    ...[
      element("div", { class: "title" }, element("h2", {}, name), condition(status.state), buttons(name, status)),
      status.note ? element("p", { class: "note" }, status.note) : null,
      numbers(status),
      ...plots(status.history),
      versions(name, kept),
    ].filter((part) => part !== null));
}

function placeholder(text) {
  find("stream").replaceChildren(element("p", { class: "empty" }, text));
}
