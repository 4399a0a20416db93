// Requests to our own server. A refusal becomes a Refusal; a network that is away, a TypeError.

const csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";

export class Refusal extends Error {
  constructor(status, { error, hint }) {
    super(error);
    Object.assign(this, { status, hint });
  }
}

export async function send(method, path, body, more = {}) {
  const headers = { "X-CSRF-Token": csrf, Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin", ...more,
  });
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({ error: `the server said ${answer.status}`, hint: "" }));
  if (!answer.ok) throw new Refusal(answer.status, said);
  return said;
}

export const post = (path, body, more) => send("POST", path, body, more);
