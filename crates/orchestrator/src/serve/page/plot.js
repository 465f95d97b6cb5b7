// Small plots over time, as SVG.

import { short } from "./show.js";

const SPACE = "http://www.w3.org/2000/svg";
const LEFT = 44, TOP = 8, BOTTOM = 16;
export const MAX_SAMPLES = 300;

function make(tag, attributes, text) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Lines, or areas on top of each other; `limit` is a line that they should stay below.
// series: [{ className, values }], all as long as `times` (seconds).
export function plot(svg, times, series, { stacked = false, limit = 0, unit = short } = {}) {
  // In pixels, so that texts keep their shape.
  const [width, height] = [svg.clientWidth || 400, svg.clientHeight || 150];
  const columns = times.map((_, n) => series.map((one) => one.values[n] ?? 0));
  const top = (column) => (stacked ? column.reduce((a, b) => a + b, 0) : Math.max(0, ...column));
  const most = niceTop(Math.max(limit, 10, ...columns.map(top)));
  const first = times[0] ?? 0;
  const span = Math.max(10, (times.at(-1) ?? 0) - first);
  const x = (n) => LEFT + ((times[n] - first) / span) * (width - LEFT - 4);
  const y = (value) => TOP + (1 - value / most) * (height - TOP - BOTTOM);
  const shapes = [0, 0.5, 1].flatMap((part) => [
    make("line", { class: "grid", x1: LEFT, x2: width, y1: y(most * part), y2: y(most * part) }),
    make("text", { x: LEFT - 4, y: y(most * part) + 3, "text-anchor": "end" }, unit(most * part)),
  ]);
  shapes.push(make("text", { x: LEFT, y: height - 3 }, `${Math.round(first)} s`));
  shapes.push(make("text", { x: width, y: height - 3, "text-anchor": "end" }, `${Math.round(first + span)} s`));
  const below = times.map(() => 0);
  for (const one of series) {
    const points = times.map((_, n) => `${x(n).toFixed(1)},${y(below[n] + (one.values[n] ?? 0)).toFixed(1)}`);
    if (stacked) {
      const back = times.map((_, n) => `${x(n).toFixed(1)},${y(below[n]).toFixed(1)}`).reverse();
      shapes.push(make("polygon", { class: one.className, points: [...points, ...back].join(" ") }));
      times.forEach((_, n) => { below[n] += one.values[n] ?? 0; });
    } else {
      shapes.push(make("polyline", { class: one.className, points: points.join(" ") }));
    }
  }
  if (limit) shapes.push(make("line", { class: "limit", x1: LEFT, x2: width, y1: y(limit), y2: y(limit) }));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...shapes);
}

// 1, 2 or 5 times a power of ten.
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value) ?? value;
}
