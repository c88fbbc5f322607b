// Text only ever becomes a text node or an attribute's value, never markup.

const find = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const element = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

const shape = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function number(value) {
  if (typeof value !== "number") return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

const share = (value) => `${number(100 * value)} %`;

const words = (name) => (name[0] ?? "").toUpperCase() + name.slice(1).replaceAll("_", " ");

const many = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function bytes(value) {
  if (typeof value !== "number") return "–";
  const unit = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, size]) => value >= size) ?? ["B", 1];
  return `${number(value / unit[1])} ${unit[0]}`;
}

const clock = (seconds) =>
  typeof seconds === "number" ? new Date(1000 * seconds).toLocaleTimeString("en-GB") : "–";
