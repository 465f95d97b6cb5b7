// One run: how far it is while it runs, its report when it has ended.

import { Refused, events, get, send } from "./api.js";
import { MAX_SAMPLES, plot } from "./plot.js";
import { bar, byId, bytes, element, number, short, state, time } from "./show.js";

const AGAIN_AFTER_MS = 2000;
const IN_FLIGHT = "in flight";

let watched = null;

// Watches the run that the address names; called again when another is chosen.
export function watchRun(id, { trouble, changed }) {
  watched?.stop.abort();
  watched = id ? { id, stop: new AbortController(), samples: [], run: null } : null;
  byId("run-none").hidden = Boolean(id);
  byId("run-shown").hidden = !id;
  if (watched) follow(watched, { trouble, changed });
}

byId("cancel").addEventListener("click", async () => {
  if (!watched) return;
  byId("cancel").disabled = true;
  try {
    await send("DELETE", `/runs/${watched.id}`);
  } catch (error) {
    showError(error.message);
  }
});

async function follow(watch, told) {
  while (!watch.stop.signal.aborted) {
    try {
      await load(watch, told);
      if (ended(watch.run)) return;
      for await (const event of events(`/runs/${watch.id}/events`, watch.stop.signal)) {
        if (watch.stop.signal.aborted) return;
        await take(watch, event, told);
      }
    } catch (error) {
      if (watch.stop.signal.aborted) return;
      if (error instanceof Refused && error.status === 404) return showError(error.message);
      told.trouble(error);
    }
    await new Promise((again) => setTimeout(again, AGAIN_AFTER_MS));
  }
}

async function take(watch, event, told) {
  if (event.name === "progress") {
    sample(watch, JSON.parse(event.data));
    if (watch.run?.status !== "running") await load(watch, told);
    draw(watch);
  } else {
    await load(watch, told);
  }
}

async function load(watch, told) {
  watch.run = await get(`/runs/${watch.id}`);
  if (watch.stop.signal.aborted) return;
  if (watch.run.progress) sample(watch, watch.run.progress);
  told.changed();
  head(watch.run);
  draw(watch);
  if (ended(watch.run)) report(watch.run);
}

const ended = (run) => !["waiting", "running"].includes(run?.status);

function head(run) {
  byId("run-title").textContent = run.flow;
  const parts = [state(run.status), ` ${run.id}`];
  if (run.status === "waiting") parts.push(`, behind ${number(run.waits_behind)} others, for ${bytes(run.memory_bytes)} of memory`);
  if (run.started) parts.push(`, started ${time(run.started)}`);
  if (run.finished) parts.push(`, ended ${time(run.finished)}`);
  if (run.cancelled && !ended(run)) parts.push(", is being cancelled");
  const set = Object.entries(run.set ?? {}).map(([name, value]) => `${name}=${value}`);
  if (set.length) parts.push(`, with ${set.join(", ")}`);
  byId("run-line").replaceChildren(...parts);
  showError(run.error);
  byId("cancel").hidden = ended(run) || !run.can_cancel;
  byId("cancel").disabled = run.cancelled;
  for (const part of ["rejected-part", "notices-part", "outputs-part", "report-part"]) byId(part).hidden = true;
}

function showError(text) {
  byId("run-error").hidden = !text;
  byId("run-error").textContent = text ?? "";
}

// Keeps what the plots show: the last few minutes, each second once. A run that begins has no steps
// yet; one that begins anew has others.
function sample(watch, progress) {
  if (!progress.steps) return;
  const last = watch.samples.at(-1);
  if (last && (progress.elapsed_ms < last.elapsed_ms || progress.steps.length !== last.steps.length)) watch.samples = [];
  else if (last && progress.elapsed_ms === last.elapsed_ms) return;
  watch.samples.push(progress);
  if (watch.samples.length > MAX_SAMPLES) watch.samples.shift();
}

const rowsOf = (step) => Math.max(step.rows_in, step.rows_out);
const color = (n) => (n < 8 ? `c${n}` : "cx");

function rates(samples) {
  const all = samples.map((now, n) => {
    const before = samples[n - 1];
    return now.steps.map((step, at) => {
      const seconds = before ? (now.elapsed_ms - before.elapsed_ms) / 1000 : 0;
      return seconds > 0 ? Math.max(0, (rowsOf(step) - rowsOf(before.steps[at])) / seconds) : 0;
    });
  });
  // What was before the first sample is not known.
  if (all.length > 1 && samples[0].elapsed_ms > 2000) all[0] = all[1];
  return all;
}

function draw(watch) {
  const { samples } = watch;
  const steps = samples.at(-1)?.steps ?? [];
  const rate = rates(samples);
  const times = samples.map((one) => one.elapsed_ms / 1000);
  const series = (values) => steps.map((_, at) => ({ className: color(at), values: samples.map((one, n) => values(one, n, at)) }));
  document.querySelector(".plots").hidden = !samples.length;
  if (samples.length) {
    const last = samples.at(-1);
    plot(byId("rate-plot"), times, series((_, n, at) => rate[n][at]));
    const memory = series((one, _, at) => one.steps[at].memory_bytes);
    memory.push({ className: "cx", values: samples.map((one) => one.memory.in_flight_bytes) });
    plot(byId("memory-plot"), times, memory, { stacked: true, limit: last.memory.limit_bytes, unit: bytes });
    plot(byId("queue-plot"), times, series((one, _, at) => one.steps[at].rows_waiting));
    byId("rate-now").textContent = `${short(Math.max(0, ...rate.at(-1)))}/s`;
    byId("memory-now").textContent = `${bytes(last.memory.reserved_bytes)} of ${bytes(last.memory.limit_bytes)}`;
    byId("queue-now").textContent = short(steps.reduce((sum, step) => sum + step.rows_waiting, 0));
    stepRows(steps, rate.at(-1), last.memory);
    rejected(last.rejected_by_reason);
  } else {
    byId("steps").replaceChildren();
  }
}

function stepRows(steps, rate, memory) {
  const cells = (step, at) => [
    element("td", {}, [element("span", { text: step.name, className: `key ${color(at)}` }), element("span", { text: step.name === step.kind ? "" : ` ${step.kind}`, className: "quiet" })]),
    ...[number(step.rows_in), number(step.rows_out), short(rate[at]), number(step.rows_waiting), number(step.rows_rejected), bytes(step.bytes)].map((text) => element("td", { text, className: "number" })),
    element("td", {}, [`${bytes(step.memory_bytes)} of ${bytes(step.memory_share_bytes)}`, bar(step.memory_bytes, step.memory_share_bytes, color(at))]),
  ];
  const rows = steps.map((step, at) => element("tr", {}, cells(step, at)));
  const flight = [element("td", {}, [element("span", { text: IN_FLIGHT, className: "key cx" })]), element("td", { attributes: { colspan: "6" } }),
    element("td", {}, [`${bytes(memory.in_flight_bytes)} of ${bytes(memory.in_flight_share_bytes)}`, bar(memory.in_flight_bytes, memory.in_flight_share_bytes, "cx")])];
  byId("steps").replaceChildren(...rows, element("tr", {}, flight));
}

function rejected(byReason) {
  const reasons = Object.entries(byReason ?? {});
  byId("rejected-part").hidden = !reasons.length;
  byId("rejected").replaceChildren(...reasons.map(([reason, n]) =>
    element("tr", {}, [element("td", { text: reason }), element("td", { text: number(n), className: "number" })])));
}

function report(run) {
  const reports = run.entries ?? (run.report ? [run.report] : []);
  const all = (of) => reports.flatMap(of);
  const sums = {};
  for (const [reason, n] of all((one) => Object.entries(one.rejected_by_reason))) sums[reason] = (sums[reason] ?? 0) + n;
  rejected(sums);
  const notices = all((one) => [...one.gaps.map((gap) => `missing: ${gap}`), ...one.warnings]);
  byId("notices-part").hidden = !notices.length;
  byId("notices").replaceChildren(...notices.map((text) => element("li", { text })));
  const outputs = all((one) => one.outputs);
  byId("outputs-part").hidden = !outputs.length;
  byId("outputs").replaceChildren(...outputs.map((one) => element("tr", {}, [
    element("td", { text: one.path }), element("td", { text: number(one.rows), className: "number" }), element("td", { text: bytes(one.bytes), className: "number" })])));
  if (reports.length) finalSteps(reports);
  byId("report-part").hidden = !reports.length;
  byId("report").textContent = JSON.stringify(run.report ?? run.entries, null, 2);
}

// The steps as the report has them: what was last seen of a run is older than its end.
function finalSteps(reports) {
  const cells = (step, at) => [
    element("td", {}, [element("span", { text: step.name, className: `key ${color(at)}` })]),
    ...[number(step.rows_in), number(step.rows_out), "", "", number(step.rows_rejected), bytes(step.bytes)].map((text) => element("td", { text, className: "number" })),
    element("td", { text: `${bytes(step.memory_peak_bytes)} at most` }),
  ];
  byId("steps").replaceChildren(...reports.flatMap((one) => one.steps.map((step, at) => element("tr", {}, cells(step, at)))));
}
