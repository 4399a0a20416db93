// Requests to our own server. A refusal becomes a Refusal; a network that is away, a TypeError; a server that takes too long,
// a TimeoutError.

let csrf = document.querySelector('meta[name="csrf"]')?.content ?? "";

export const token = () => csrf;

export class Refusal extends Error {
  // final: the same request can never succeed. after: seconds in which it may, where the server knows.
  constructor(status, { error = `the server said ${status}`, hint = "", final = false }, after = 0) {
    super(error);
    Object.assign(this, { status, hint, final, after });
  }
}

export async function send(method, path, body, more = {}) {
  const headers = { "X-CSRF-Token": csrf, Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin", ...more,
  });
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, said, Number(answer.headers.get("Retry-After")) || 0);
  return said;
}

export const post = (path, body, more) => send("POST", path, body, more);

// After a login in another tab this page's token is stale. "new" where there is a new one, "out" where nobody is logged in any
// more, else "same"; the page is loaded again where somebody else is logged in now.
export async function renew() {
  const answer = await fetch(location.pathname, { credentials: "same-origin", headers: { Accept: "text/html" } });
  if (answer.redirected) return "out";
  if (!answer.ok) return "same";
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const who = (one) => JSON.parse(one.getElementById("options")?.textContent ?? "{}").labeler;
  if (who(page) !== who(document)) location.reload();
  const fresh = page.querySelector('meta[name="csrf"]')?.content || csrf;
  const changed = fresh !== csrf;
  csrf = fresh;
  return changed ? "new" : "same";
}
