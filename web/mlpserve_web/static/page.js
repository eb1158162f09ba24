// What every part of the page uses.

export const at = (id) => document.getElementById(id);

export const made = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text, ...properties });

const hints = new Map();

/** Put these into an element; without any, what it had at first: a hint at what to do next. */
export function fill(id, children) {
  if (!hints.has(id)) hints.set(id, [...at(id).children]);
  at(id).replaceChildren(...(children.length ? children : hints.get(id)));
}

export const percent = (share) => `${(share * 100).toFixed(1)} %`;

const SVG = "http://www.w3.org/2000/svg";

/** A shape of SVG, or an `svg` itself, hidden from screen readers: a number beside it says the same. */
export function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (tag === "svg") element.setAttribute("aria-hidden", "true");
  return element;
}

/** A line of a list of bars: a name, a bar, a number. */
export function bar(name, share, text = percent(share)) {
  const line = made("li");
  const drawing = shape("svg", { viewBox: "0 0 100 1", preserveAspectRatio: "none" });
  drawing.append(shape("rect", { width: share * 100, height: 1 }));
  const track = made("span", "", { className: "bar" });
  track.append(drawing);
  line.append(made("span", name, { title: name }), track, made("span", text));
  return line;
}

/** The width of the images that a model takes; 0 where it takes none. */
export function imageWidth(shape) {
  const sides = shape.filter((side) => side !== 1);
  if (sides.length === 2) return sides[1];
  const root = Math.round(Math.sqrt(sides[0] ?? 0));
  return sides.length === 1 && root * root === sides[0] && root > 3 ? root : 0;
}
