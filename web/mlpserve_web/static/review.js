// The review of corrections: each with its picture or numbers, who says what, and two buttons.

import { answer, tokenOf } from "./api.js";
import * as draw from "./draw.js";
import { at, imageWidth, made, percent } from "./page.js";

const REFRESH_MS = 10000;
const NUMBERS = 32; // of a row that is no picture
const token = tokenOf("review-token");

const listed = () => answer("api/corrections", {}, token);
const send = (tag, verdict) => answer(`api/corrections/${encodeURIComponent(tag)}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ verdict }) }, token);

function say(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

async function refresh() {
  try {
    show(await listed());
    say("");
  } catch (error) {
    at("token-form").hidden = error.status !== 401;
    at("count").textContent = "";
    at("empty").hidden = true;
    at("corrections").replaceChildren();
    if (error.status !== 401 || token.get()) say(error.message);
  }
}

function show({ model, waiting, corrections }) {
  at("token-form").hidden = true;
  at("count").textContent = waiting ? `Waiting corrections of ${model}: ${waiting.toLocaleString("en")}` : `No corrections of ${model} wait`;
  at("empty").hidden = waiting > 0;
  const there = new Map([...at("corrections").children].map((card) => [card.dataset.tag, card]));
  // A card stays what it is, with the focus in it.
  const cards = corrections.map((one) => there.get(one.tag) ?? card(one));
  const wanted = new Set(cards);
  for (const old of there.values()) if (!wanted.has(old)) old.remove();
  for (const one of cards) if (!one.isConnected) at("corrections").append(one);
}

function card(one) {
  const item = made("li");
  item.dataset.tag = one.tag;
  const title = made("h3", `${one.truth}, not ${one.answer}?`);
  title.id = `title-${one.tag}`;
  const buttons = made("div", "", { className: "row" });
  buttons.append(button("Accept", "accepted", one, item), button("Reject", "rejected", one, item));
  const status = made("p", "", { className: "status" });
  status.setAttribute("role", "status");
  item.append(seen(one.instance), title, facts(one), buttons, status);
  return item;
}

function button(text, verdict, one, item) {
  const result = made("button", text, { type: "button" });
  result.setAttribute("aria-describedby", `title-${one.tag}`);
  result.addEventListener("click", () => decide(one.tag, verdict, item));
  return result;
}

async function decide(tag, verdict, item) {
  const buttons = item.querySelectorAll("button");
  for (const one of buttons) one.disabled = true;
  try {
    await send(tag, verdict);
    item.remove();
    await refresh();
    (at("corrections").querySelector("button") ?? at("title")).focus();
  } catch (error) {
    item.querySelector(".status").textContent = error.message;
    for (const one of buttons) one.disabled = false;
  }
}

function seen({ shape, values }) {
  const width = imageWidth(shape);
  const count = shape.reduce((a, b) => a * b, 1); // of large ones not all are here
  const isPicture = width > 0 && values.length === count && values.every((value) => value >= 0 && value <= 1);
  if (!isPicture) {
    const shown = values.slice(0, NUMBERS).map((value) => +value.toPrecision(4)).join(", ");
    return made("p", count > NUMBERS ? `${shown}, … (${count} numbers)` : shown, { className: "numbers" });
  }
  const canvas = made("canvas", "", { role: "img" });
  canvas.setAttribute("aria-label", "The instance that was answered");
  draw.grey(canvas, values, width);
  return canvas;
}

function facts(one) {
  const list = made("dl");
  const claims = Object.entries(one.claims).map(([name, count]) => `${count} × ${name}`).join(", ");
  const lines = {
    answer: `${one.answer}, ${percent(one.confidence)}, version ${one.version}`,
    claims,
    source: one.source || "without a token",
    suspect: one.suspicion,
    note: one.note,
    reported: one.reported.slice(0, 19).replace("T", " "),
  };
  for (const [name, text] of Object.entries(lines)) if (text) list.append(made("dt", name), made("dd", text));
  return list;
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(at("token").value.trim());
  refresh();
});

await refresh();
setInterval(() => document.hidden || refresh(), REFRESH_MS);
