/** Writes of a collection to a REST API, as Django REST framework's routers lay one out. */

const TIMEOUT_MS = 30000;

/**
 * @typedef {object} Writes How a collection writes rows where a call says nothing else. Each returns
 *   what `write` returns: a Response, or a receipt, or a promise of either.
 * @property {(row: object) => any} [insert]
 * @property {(key: any, changes: object) => any} [update]
 * @property {(key: any) => any} [delete]
 */

/**
 * `POST url` for a new row, `PATCH url<key>/` and `DELETE url<key>/` for one that is there; JSON, with
 * Django's CSRF token where the page has its cookie.
 *
 * @param {string} url Of the list, with the "/" at its end.
 * @param {object} [options]
 * @param {object|(() => (object|Promise<object>))} [options.headers] More headers, such as
 *   `{authorization: "Bearer …"}`; a function is asked before each request.
 * @param {number} [options.timeout] Milliseconds after which a request without an answer is given up,
 *   and the write taken back. Default 30,000.
 * @param {typeof fetch} [options.fetch]
 * @returns {Writes}
 */
export function rest(
  url,
  { headers = {}, timeout = TIMEOUT_MS, fetch = (...request) => globalThis.fetch(...request) } = {},
) {
  const base = url.endsWith("/") ? url : `${url}/`;
  const at = (key) => `${base}${partOf(key)}/`;

  async function ask(method, to, body) {
    const more = typeof headers === "function" ? await headers() : headers;
    const token = csrfToken();
    return fetch(to, {
      method,
      // Followed, a redirection to the sign-in looks like a success.
      redirect: "manual",
      signal: AbortSignal.timeout?.(timeout),
      headers: {
        accept: "application/json",
        ...(body !== undefined && { "content-type": "application/json" }),
        ...(token !== null && { "x-csrftoken": token }),
        ...more,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  return {
    insert: (row) => ask("POST", base, row),
    update: (key, changes) => ask("PATCH", at(key), changes),
    delete: (key) => ask("DELETE", at(key)),
  };
}

/**
 * A key as a part of a path.
 *
 * @throws {TypeError} for "." and "..", which lead to another URL however they are written, and for "".
 */
function partOf(key) {
  const part = [key].flat().map(encodeURIComponent).join(",");
  if (/^\.{0,2}$/.test(part)) throw new TypeError(`a row whose key is "${part}" has no URL of its own`);
  return part;
}

function csrfToken() {
  return /(?:^|; )csrftoken=([^;]+)/.exec(globalThis.document?.cookie ?? "")?.[1] ?? null;
}
