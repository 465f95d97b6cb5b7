// Makes elements and texts. Whatever came from outside is set as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function element(tag, options = {}, children = []) {
  const made = document.createElement(tag);
  if (options.text !== undefined) made.textContent = options.text;
  if (options.className) made.className = options.className;
  for (const [name, value] of Object.entries(options.attributes ?? {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function number(n) {
  return Number(n ?? 0).toLocaleString("en");
}

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let [value, unit] = [Number(n ?? 0), 0];
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${units[unit]}`;
}

export function short(n) {
  const units = ["", "k", "M", "G", "T"];
  let [value, unit] = [Number(n ?? 0), 0];
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${value.toFixed(value < 10 && unit ? 1 : 0)}${units[unit]}`;
}

export function time(text) {
  if (!text) return "";
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const clock = at.toLocaleTimeString([], { hour12: false });
  return today ? clock : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock.slice(0, 5)}`;
}

const two = (n) => String(n).padStart(2, "0");

export function state(word) {
  return element("span", { text: word, className: `state ${word}` });
}

export function bar(used, total, className = "") {
  const share = total > 0 ? Math.min(1, used / total) : 0;
  const filled = element("i");
  filled.style.width = `${(share * 100).toFixed(1)}%`;
  return element("span", { className: `bar ${className}` }, [filled]);
}

// Puts other children in the place of those there. Whoever had the focus keeps it, by its `data-key`.
export function redraw(parent, children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key) [...parent.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key)?.focus();
}
