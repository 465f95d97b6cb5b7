// Talks to the server that this page came from.

let token = sessionStorage.getItem("aqueduct-token") ?? "";

export function useToken(text) {
  token = text;
  sessionStorage.setItem("aqueduct-token", text);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function headers() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function checked(answer) {
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const hint = answer.status === 401 ? "this server wants a token: see the top of the page" : `status ${answer.status}`;
  throw new Refused(answer.status, told.error ?? hint);
}

export async function get(path) {
  return (await checked(await fetch(path, { headers: headers() }))).json();
}

export async function send(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: { ...headers(), "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return (await checked(answer)).json();
}

// More than this without the end of an event is none of ours.
const MAX_EVENT_CHARS = 1 << 22;

// The events of a stream, until it ends. Read with fetch: an EventSource could not send the token.
export async function* events(path, signal) {
  const answer = await checked(await fetch(path, { headers: { ...headers(), Accept: "text/event-stream" }, signal }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    if (rest.length > MAX_EVENT_CHARS) throw new Error("an event is too long");
    const whole = rest.split("\n\n");
    rest = whole.pop();
    for (const text of whole) {
      const event = parsed(text);
      if (event) yield event;
    }
  }
}

function parsed(text) {
  const event = { name: "message", data: [] };
  for (const line of text.split("\n")) {
    if (line.startsWith("event:")) event.name = line.slice(6).trim();
    if (line.startsWith("data:")) event.data.push(line.slice(5).trimStart());
  }
  return event.data.length ? { name: event.name, data: event.data.join("\n") } : null;
}
