/** Requests over HTTP: JSON, with Django's CSRF token. */

/** The errors in REST framework's reply to a refused request, as one text. */
function reason(body, status) {
  const said = body.detail ?? body.error;
  if (typeof said === "string") return said;
  const texts = Object.entries(body).flatMap(([field, errors]) => {
    const name = field === "non_field_errors" ? "" : `${field.replace(/_id$/, "").replaceAll("_", " ")}: `;
    return [errors].flat().map((error) => name + error);
  });
  return texts.join(" ") || `The server answered ${status}.`;
}

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
  if (response.ok) return response;
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  throw new Refused(response.status, reason(isJson ? await response.json() : {}, response.status));
}

/**
 * @returns {Promise<any>} The JSON of the answer.
 * @throws {Refused}
 */
export async function read(url) {
  return (await answer(fetch(url, { headers: { accept: "application/json" } }))).json();
}

/**
 * @returns {Promise<Response>} Its header has the receipt of what was written.
 * @throws {Refused}
 */
export function send(method, url, body = {}) {
  const headers = { accept: "application/json", "content-type": "application/json", "x-csrftoken": csrfToken() };
  return answer(fetch(url, { method, headers, body: JSON.stringify(body) }));
}
