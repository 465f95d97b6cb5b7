// The page: what is asked for how often, and what is shown where.

import { get, useToken } from "./api.js";
import { showFlows, startDialog, watchLists } from "./lists.js";
import { watchRun } from "./run.js";
import { byId, bytes, element, number } from "./show.js";

const EVERY_MS = 2000;
// Flows are files that somebody edits: they are listed rarer.
const FLOWS_EVERY = 5;
let nth = 0;

function trouble(error) {
  byId("trouble").hidden = !error;
  if (error) console.warn(error.stack);
  if (error) byId("trouble").textContent = error instanceof TypeError ? "the server does not answer" : error.message;
}

const refreshRuns = watchLists({ trouble });
const openStart = startDialog({ started: (run) => { location.hash = `#run/${run.id}`; refreshRuns(); } });

function chosen() {
  const id = location.hash.startsWith("#run/") ? decodeURIComponent(location.hash.slice(5)) : "";
  watchRun(id, { trouble, changed: refreshRuns });
}

async function showServer() {
  const server = await get("/server");
  const n = server.runs;
  const { limit_bytes: limit, reserved_bytes: reserved, rss_bytes: resident } = server.memory;
  byId("summary").textContent =
    `${number(n.running)} running, ${number(n.waiting)} waiting; memory ${bytes(reserved)} of ${bytes(limit)}, resident ${bytes(resident)}`;
  byId("gauge-used").style.width = `${limit ? Math.min(100, (100 * reserved) / limit) : 0}%`;
  byId("gauge").setAttribute("aria-label", `memory: ${bytes(reserved)} of ${bytes(limit)}`);
  streams(server.streams ?? []);
  return server;
}

function streams(all) {
  byId("streams-section").hidden = !all.length;
  byId("streams").replaceChildren(...all.map((stream) => element("tr", {}, [
    element("td", { text: stream.name }),
    ...[number(stream.clients), number(stream.events), `${number(stream.max_lag_events)} events`].map((text) => element("td", { text, className: "number" })),
    element("td", {}, [lags(stream.lag ?? [])]),
    element("td", { text: number(stream.evicted), className: "number" }),
  ])));
}

// How many clients are how far behind: a bar for each part of the queue.
function lags(counts) {
  const most = Math.max(1, ...counts);
  const bars = counts.map((count) => {
    const one = element("i");
    one.style.height = `${(100 * count) / most}%`;
    return one;
  });
  return element("div", { className: "hist", attributes: { role: "img", "aria-label": `clients by how far behind: ${counts.join(", ")}` } }, bars);
}

async function refresh() {
  if (document.hidden) return;
  try {
    const server = await showServer();
    if (nth++ % FLOWS_EVERY === 0) await showFlows(server.starts_runs, openStart);
    await refreshRuns();
    trouble(null);
    if (!server.starts_runs && !location.hash) await showOnly();
  } catch (error) {
    trouble(error);
  }
}

// Where there is one run, it is shown.
async function showOnly() {
  const { runs } = await get("/runs?limit=1");
  if (runs.length) location.hash = `#run/${runs[0].id}`;
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  byId("token").value = "";
  byId("access").open = false;
  refresh();
  chosen();
});
window.addEventListener("hashchange", () => {
  chosen();
  // Where the run stands below the lists, it would not be seen.
  if (matchMedia("(max-width: 56rem)").matches) byId("run").scrollIntoView();
});
document.addEventListener("visibilitychange", refresh);
chosen();
refresh();
setInterval(refresh, EVERY_MS);
