// Why an answer came out as it did: heat maps over the drawing, and the hidden units that fired most.

import * as draw from "./draw.js";
import { at, imageWidth, made } from "./page.js";

/** Show the maps of one answer, or of two to the same input. */
export function showWhy(answers) {
  const [{ instance, explanation }] = answers;
  const width = imageWidth(instance.shape);
  at("why").hidden = !width;
  if (!width) return;
  draw.grey(at("seen"), instance.values, width);
  const explained = answers.filter((answer) => answer.explanation);
  at("map-list").replaceChildren(...explained.map((answer) => map(answer, instance.values, width)));
  at("map-key").hidden = !explained.length;
  const units = explanation?.units ?? [];
  at("units").hidden = !units.length;
  at("unit-list").replaceChildren(...units.map((one) => unit(one, width)));
}

function map(answer, values, width) {
  const figure = made("figure");
  const canvas = picture(`Heat map: what speaks for ${answer.name} and what against it`);
  draw.heat(canvas, answer.explanation.attributions, values, width);
  figure.append(canvas, made("figcaption", `${answer.name}, by version ${answer.version}`));
  return figure;
}

function unit({ number, activation, weights }, width) {
  const item = made("li");
  const canvas = picture(`What unit ${number} looks for`);
  draw.signed(canvas, weights, width);
  item.append(canvas, made("span", `${number}: ${activation.toFixed(1)}`, { className: "hint" }));
  return item;
}

function picture(label) {
  const canvas = made("canvas", "", { role: "img" });
  canvas.setAttribute("aria-label", label);
  return canvas;
}
