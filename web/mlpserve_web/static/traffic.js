// Live traffic: the servers' counters, read every few seconds, as rates.

import * as api from "./api.js";
import { at, bar, fill, made, percent, shape } from "./page.js";

const READ_MS = 2000;
const POINTS = 60;

const rates = [];
let before = null;

/** Read and show for as long as the page is open; a hidden page reads nothing. */
export function follow() {
  read();
  setInterval(read, READ_MS);
}

async function read() {
  if (document.hidden) return;
  let now;
  try {
    now = { ...(await api.traffic()), time: performance.now() };
  } catch (error) {
    before = null;
    at("traffic-figures").replaceChildren(figure("no metrics", error.message));
    return;
  }
  show(now, before);
  before = now;
}

function show(now, before) {
  const seconds = before ? (now.time - before.time) / 1000 : 0;
  const calls = before ? now.calls - before.calls : 0;
  const counts = now.seconds.counts.map((count, i) => count - (before?.seconds.counts[i] ?? 0));
  // Fewer than before: a server was restarted, and its counters with it.
  const known = seconds > 0 && calls >= 0;
  if (known) rates.push(calls / seconds);
  if (rates.length > POINTS) rates.shift();
  at("traffic-figures").replaceChildren(
    figure("calls a second", known ? (calls / seconds).toFixed(1) : "…"),
    figure("failed", known && calls ? percent((now.failed - before.failed) / calls) : "–"),
    figure("median", known ? duration(counts, now.seconds.bounds, 0.5) : "…"),
    figure("99th percentile", known ? duration(counts, now.seconds.bounds, 0.99) : "…"),
  );
  at("traffic-line").replaceChildren(line(rates));
  showClasses(now.classes);
  at("traffic-shadows").replaceChildren(...now.shadows.filter(({ agreed, differed }) => agreed + differed).map(shadow));
  fill("traffic-evidence", [...now.audits.map(audit), ...now.drifts.map(drift)]);
}

function figure(name, value) {
  const pair = made("div");
  pair.append(made("dt", name), made("dd", value));
  return pair;
}

/** The upper bound of the bucket in which this share of the calls since the last reading lies. */
function duration(counts, bounds, share) {
  const all = counts.at(-1);
  if (!all) return "–";
  const bucket = counts.findIndex((count) => count >= share * all);
  const bound = bounds[bucket];
  return bound === undefined ? `over ${bounds.at(-1)} s` : `≤ ${+(bound * 1000).toPrecision(3)} ms`;
}

function line(values) {
  const top = Math.max(...values, 1);
  const drawing = shape("svg", { viewBox: `0 0 ${POINTS - 1} 1`, preserveAspectRatio: "none" });
  const points = values.map((value, i) => `${POINTS - values.length + i},${1 - value / top}`).join(" ");
  drawing.append(shape("polyline", { points }));
  return drawing;
}

function showClasses(classes) {
  const all = classes.reduce((sum, { rows }) => sum + rows, 0);
  const sorted = [...classes].sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  fill("traffic-classes", sorted.map(({ name, rows }) => bar(name, rows / all, rows.toLocaleString("en"))));
}

/** What a sentence begins with: several models may have the same numbers. */
const named = ({ model, version }) => (model ? `${model} version ${version}` : `Version ${version}`);

function shadow({ agreed, differed, ...of }) {
  const rows = agreed + differed;
  return made("li", `${named(of)} in the shadow agrees on ${percent(agreed / rows)} of ${rows.toLocaleString("en")} rows.`);
}

function audit({ right, rows, low, high, ...of }) {
  return made("li", `${named(of)}: ${percent(right / rows)} of ${rows.toLocaleString("en")} audited answers were right, so ${percent(low)} to ${percent(high)} are.`);
}

function drift({ signals, ...of }) {
  if (!signals.length) return made("li", `Inputs look like the holdout of ${named(of)}.`);
  return made("li", `Inputs no longer look like the holdout of ${named(of)}: ${signals.join(", ").replaceAll("_", " ")}.`);
}
