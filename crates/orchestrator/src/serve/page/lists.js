// The lists on the left: flows that can be started, and runs.

import { get, send } from "./api.js";
import { byId, element, number, redraw, state, time } from "./show.js";

const PAGE = 25;
const MAX_FLOWS_SHOWN = 100;
// The runs before which the pages up to this one begin.
let pages = [null];
let flows = [];

export function watchLists({ trouble }) {
  const refresh = () => showRuns().catch(trouble);
  const fromStart = () => { pages = [null]; refresh(); };
  byId("search").addEventListener("input", fromStart);
  byId("status").addEventListener("change", fromStart);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  byId("flow-search").addEventListener("input", drawFlows);
  byId("newer").addEventListener("click", () => { pages.pop(); refresh(); });
  byId("older").addEventListener("click", () => { pages.push(byId("older").dataset.before); refresh(); });
  window.addEventListener("hashchange", markChosen);
  return refresh;
}

export async function showFlows(startsRuns, start) {
  flows = (await get("/flows")).flows.map((flow) => ({ ...flow, start: startsRuns ? start : null }));
  byId("flow-search").hidden = flows.length < 8;
  drawFlows();
}

function drawFlows() {
  const text = byId("flow-search").value.toLowerCase();
  const found = flows.filter((flow) => `${flow.name ?? ""} ${flow.file}`.toLowerCase().includes(text));
  const shown = found.slice(0, MAX_FLOWS_SHOWN);
  redraw(byId("flows"), shown.map(flowItem));
  byId("flows-more").hidden = found.length > 0 && found.length === shown.length;
  byId("flows-more").textContent = found.length ? `and ${number(found.length - shown.length)} more` : "No flow here.";
}

function flowItem(flow) {
  const name = element("span", { text: flow.name ?? flow.file });
  const about = [flow.schedule, flow.error].filter(Boolean).join("; ");
  if (about) name.append(element("small", { text: about, className: flow.error ? "error-text" : "quiet" }));
  const item = element("li", {}, [name]);
  if (flow.start && flow.name) {
    const button = element("button", { text: "Start", attributes: { type: "button", "aria-label": `Start ${flow.name}`, "data-key": flow.name } });
    button.addEventListener("click", () => flow.start(flow.name));
    item.append(button);
  }
  return item;
}

async function showRuns() {
  const query = new URLSearchParams({ limit: PAGE });
  const before = pages.at(-1);
  if (before) query.set("before", before);
  if (byId("status").value) query.set("status", byId("status").value);
  if (byId("search").value) query.set("q", byId("search").value);
  const page = await get(`/runs?${query}`);
  redraw(byId("run-rows"), page.runs.map(runRow));
  byId("newer").disabled = pages.length === 1;
  byId("older").disabled = !page.next;
  byId("older").dataset.before = page.next ?? "";
  const from = (pages.length - 1) * PAGE;
  byId("page-place").textContent = page.total ? `${from + 1} to ${from + page.runs.length} of ${number(page.total)}` : "none";
  markChosen();
}

function runRow(run) {
  const link = element("a", { text: run.flow, attributes: { href: `#run/${run.id}`, "data-key": run.id } }, [element("small", { text: run.id })]);
  const row = element("tr", { attributes: { "data-run": run.id } }, [
    element("td", {}, [link]),
    element("td", {}, [state(run.status)]),
    element("td", { text: time(run.started ?? run.asked) }),
    element("td", { text: number(run.rows_out), className: "number" }),
  ]);
  return row;
}

function markChosen() {
  const chosen = location.hash.replace("#run/", "");
  for (const row of byId("run-rows").children) {
    if (row.dataset.run === chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

// Asks for what it takes to start a flow, then starts it.
export function startDialog({ started }) {
  const dialog = byId("start");
  let flow = "";
  byId("start-not").addEventListener("click", () => dialog.close());
  byId("start-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const set = assignments(byId("start-set").value);
      const run = await send("POST", "/runs", { flow, set, fresh: byId("start-fresh").checked });
      dialog.close();
      started(run);
    } catch (error) {
      byId("start-trouble").textContent = error.message;
      byId("start-trouble").hidden = false;
    }
  });
  return (name) => {
    flow = name;
    byId("start-title").textContent = `Start ${name}`;
    byId("start-trouble").hidden = true;
    byId("start-set").value = "";
    byId("start-fresh").checked = false;
    dialog.showModal();
  };
}

function assignments(text) {
  const set = {};
  for (const line of text.split("\n").filter((line) => line.trim())) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`${line}: expected NAME=VALUE`);
    set[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return set;
}
