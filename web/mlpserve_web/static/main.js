// The page: what is put in, what comes out, and why.

import * as api from "./api.js";
import { ask } from "./feedback.js";
import { DIGITS } from "./examples.js";
import { Pad } from "./pad.js";
import { at, bar, fill, imageWidth, made, percent } from "./page.js";
import * as snippets from "./snippets.js";
import * as traffic from "./traffic.js";
import { showWhy } from "./why.js";

const REFRESH_MS = 5000;
const BARS = 10;
// What the page leaves out where the gateway was not told where it is.
const FLAGS = [
  ["reports and hidden units with --store", (models) => models.reports],
  ["live traffic with --metrics", (models) => models.traffic],
  ["the question whether an answer is right with --feedback", (models) => models.feedback],
];

const state = { models: null, input: null, answer: null, language: "curl" };

function say(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

// One request at a time: while one is under way the newest input waits, and older ones are dropped.
let busy = false;
let next = null;
let encoding = 0; // drawings that are being made into pictures

async function classify(input) {
  state.input = input;
  next = input;
  if (busy) return;
  busy = true;
  while (next) {
    const now = next;
    next = null;
    try {
      const [first, second] = await Promise.all([
        api.classify(now, at("version").value),
        at("other").value ? api.classify(now, at("other").value) : null,
      ]);
      if (state.input) show(first, second, now);
      say("");
    } catch (error) {
      say(error.message);
    }
  }
  busy = false;
  at("answers").ariaBusy = String(encoding > 0);
}

function show(answer, second, input) {
  state.answer = answer;
  at("answer").replaceChildren(...described(answer));
  at("second").replaceChildren(...(second ? described(second) : []));
  at("agreement").textContent = second ? agreement(answer, second) : "";
  showWhy(second ? [answer, second] : [answer]);
  ask(state.models?.feedback && input, answer);
  showSnippet();
}

function agreement(answer, second) {
  if (answer.name === second.name) return `Both versions say ${answer.name}.`;
  return `Version ${answer.version} says ${answer.name}, version ${second.version} says ${second.name}.`;
}

// Outputs that are no probabilities are shown as numbers, their bars as shares of the largest one.
function described(answer) {
  const text = answer.output_kind === "values" ? (value) => value.toPrecision(4) : percent;
  const order = answer.probabilities.map((_, label) => label).sort((a, b) => answer.probabilities[b] - answer.probabilities[a]);
  const whole = Math.max(1, answer.probabilities[order[0]]);
  const shown = (order.length > BARS ? order.slice(0, BARS) : [...order].sort((a, b) => a - b)).map((label) => bar(answer.class_names[label], Math.max(answer.probabilities[label] / whole, 0), text(answer.probabilities[label])));
  const list = made("ol", "", { className: "bars" });
  list.append(...shown);
  return [
    made("p", answer.name, { className: "name" }),
    made("p", `${text(answer.probabilities[answer.label])}, version ${answer.version}, ${answer.milliseconds.toFixed(1)} ms`, { className: "hint" }),
    list,
  ];
}

function showSnippet() {
  const { answer, models } = state;
  if (!answer) return;
  const version = at("version").value;
  at("snippet").textContent =
    state.language === "curl" ? snippets.curl(answer.model, version, answer.instance) : snippets.python(models.target, version, answer.instance);
  for (const language of ["curl", "python"]) at(`show-${language}`).setAttribute("aria-pressed", String(language === state.language));
}

let failing = false;

async function refresh() {
  try {
    const models = await api.models();
    const changed = failing || JSON.stringify(models) !== JSON.stringify(state.models);
    if (failing) say("");
    failing = false;
    state.models = models;
    if (changed) showModels(models);
    at("review").hidden = !models.review;
    at("token-form").hidden = true;
    if (models.traffic && at("traffic").hidden) {
      at("traffic").hidden = false;
      traffic.follow();
    }
  } catch (error) {
    failing = true;
    at("served").textContent = "No model answers.";
    at("token-form").hidden = error.status !== 401;
    const several = error.message.includes("name a model");
    if (several && !state.models) at("versions").querySelector(".hint").textContent = "Not known.";
    say(several ? `${error.message}. Of several, mlpserve web --model NAME chooses one.` : error.message);
  }
}

function showModels(models) {
  const served = models.versions.find((version) => version.state === "ACTIVE");
  at("served").textContent = served ? `${served.name}, version ${served.version}` : "No version is served yet.";
  const usable = models.versions.filter((version) => ["ACTIVE", "STANDBY"].includes(version.state));
  choices(at("version"), [["", "the one being served"], ...usable.map(option)]);
  choices(at("other"), [["", "nothing"], ...usable.map(option)]);
  fill("versions", models.versions.map(row));
  const more = FLAGS.filter(([, given]) => !given(models)).map(([what]) => what);
  at("more").textContent = `More with flags of mlpserve-web: ${more.join(", ")}.`;
  at("more").hidden = !more.length;
  const shape = served?.input_shape;
  const real = served?.input_kind === "real";
  const image = shape && !real && imageWidth(shape) > 0;
  at("picture").hidden = Boolean(shape) && !image;
  at("numbers").hidden = !shape || image;
  if (shape) at("values-label").textContent = `${shape.reduce((a, b) => a * b, 1)} numbers${real ? "" : " of 0 to 1"}, with commas or spaces`;
}

const option = (version) => [String(version.version), [version.version, ...version.aliases].join(" ")];

function choices(select, pairs) {
  const chosen = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => made("option", text, { value })));
  if (pairs.some(([value]) => value === chosen)) select.value = chosen;
}

function row(version) {
  const line = made("tr");
  const accuracy = version.metrics.accuracy;
  for (const text of [version.version, version.state.toLowerCase(), version.aliases.join(", "), accuracy === undefined ? "" : accuracy.toFixed(4), version.created.slice(0, 19).replace("T", " "), version.reason])
    line.append(made("td", String(text)));
  const report = made("td");
  // A link carries no token.
  if (version.report && !api.token.get()) report.append(made("a", "report", { href: version.report, target: "_blank", rel: "noopener" }));
  line.append(report);
  return line;
}

const pad = new Pad(at("pad"), async () => {
  at("answers").ariaBusy = "true";
  encoding += 1;
  const picture = pad.empty ? null : await pad.blob();
  encoding -= 1;
  if (picture && !pad.empty) return classify(picture); // it may have been wiped meanwhile
  state.input = next = null;
  at("answer").replaceChildren(made("p", "Draw something, or choose an example.", { className: "hint" }));
  at("second").replaceChildren();
  at("agreement").textContent = "";
  at("answers").ariaBusy = String(busy || encoding > 0);
  at("why").hidden = true;
  ask(null);
});

for (const [digit, strokes] of Object.entries(DIGITS)) {
  const button = made("button", digit, { type: "button" });
  button.addEventListener("click", () => pad.strokes(strokes));
  at("examples").append(button);
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.token.set(at("token").value.trim());
  refresh();
});
at("clear").addEventListener("click", () => pad.clear());
at("file").addEventListener("change", ({ target }) => target.files[0] && classify(target.files[0]));
at("input").addEventListener("dragover", (event) => {
  event.preventDefault();
  at("input").classList.add("over");
});
at("input").addEventListener("dragleave", () => at("input").classList.remove("over"));
at("input").addEventListener("drop", (event) => {
  event.preventDefault();
  at("input").classList.remove("over");
  if (event.dataTransfer.files[0]) classify(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) classify(file);
});
at("numbers").addEventListener("submit", (event) => {
  event.preventDefault();
  const numbers = at("values").value.split(/[\s,;]+/).filter(Boolean).map(Number);
  if (numbers.some(Number.isNaN)) say("The values are not all numbers.");
  else classify(numbers);
});
for (const id of ["version", "other"]) at(id).addEventListener("change", () => state.input && classify(state.input));
for (const language of ["curl", "python"])
  at(`show-${language}`).addEventListener("click", () => {
    state.language = language;
    showSnippet();
  });
at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("snippet").textContent);
    at("copied").textContent = "copied";
  } catch {
    at("copied").textContent = "select the text and copy it: the browser does not allow it here";
  }
});

await refresh();
setInterval(refresh, REFRESH_MS);
if (state.models?.dashboard) {
  at("dashboard").hidden = false;
  at("dashboard").firstElementChild.href = state.models.dashboard;
}
