// Whether an answer was right: what people say goes to the operator of the servers, with the input.

import * as api from "./api.js";
import { at, made } from "./page.js";

let shown = null;

/** Ask about an answer to an input; null asks nothing. */
export function ask(input, answer) {
  shown = input && answer ? { input, answer } : null;
  at("feedback").hidden = !shown;
  at("feedback-status").textContent = "";
  if (!shown) return;
  const others = answer.class_names.filter((name) => name !== answer.name);
  at("truth").replaceChildren(made("option", "I cannot say", { value: "" }), ...others.map((name) => made("option", name, { value: name })));
  enable(true);
}

async function say(truth) {
  const { input, answer } = shown;
  enable(false);
  try {
    const { recorded } = await api.feedback(input, answer.version, truth);
    at("feedback-status").textContent = recorded ? "Thank you." : "This was said before.";
  } catch (error) {
    at("feedback-status").textContent = error.message;
    enable(true);
  }
}

function enable(yes) {
  for (const id of ["right", "wrong", "truth"]) at(id).disabled = !yes;
}

at("right").addEventListener("click", () => say({ said: "right" }));
at("wrong").addEventListener("click", () => say(at("truth").value ? { class: at("truth").value } : { said: "wrong" }));
