/** Asking the server over HTTP: JSON in, JSON out, with Django's CSRF token. */

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function csrfToken() {
  return /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "";
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Refused(0, "The server cannot be reached.");
  }
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const body = isJson ? await response.json() : {};
  if (response.ok) return body;
  throw new Refused(response.status, body.error ?? `The server answered ${response.status}.`);
}

/** @throws {Refused} */
export function read(url) {
  return answer(fetch(url, { headers: { accept: "application/json" } }));
}

/** @throws {Refused} */
export function send(url, body = {}) {
  const headers = { "content-type": "application/json", "x-csrftoken": csrfToken() };
  return answer(fetch(url, { method: "POST", headers, body: JSON.stringify(body) }));
}
