/** Writes to a REST API: the requests, and what is read of the answers. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { loadClient } from "./server.mjs";

const { rest } = await loadClient();
const { receiptsIn, RefusedError } = await loadClient("receipts.js");

afterEach(() => delete globalThis.document);

function recorded(options) {
  const requests = [];
  const fetch = async (url, init) => requests.push([init.method, url, init.headers, init.body]);
  return { requests, writes: rest("/api/tasks/", { fetch, ...options }) };
}

test("a row is posted to the list, and one that is there is patched and deleted at its own URL", async () => {
  const { requests, writes } = recorded();
  await writes.insert({ title: "new" });
  await writes.update(7, { title: "newer" });
  await writes.delete("a/b");
  await writes.delete([1, 2]);
  const json = { accept: "application/json", "content-type": "application/json" };
  assert.deepEqual(requests, [
    ["POST", "/api/tasks/", json, '{"title":"new"}'],
    ["PATCH", "/api/tasks/7/", json, '{"title":"newer"}'],
    ["DELETE", "/api/tasks/a%2Fb/", { accept: "application/json" }, undefined],
    ["DELETE", "/api/tasks/1,2/", { accept: "application/json" }, undefined],
  ]);
});

test("a row whose key would lead to another URL is not written there", () => {
  const { requests, writes } = recorded();
  for (const key of ["..", ".", "", [""], [".."]]) {
    assert.throws(() => writes.delete(key), /has no URL of its own/);
    assert.throws(() => writes.update(key, {}), /has no URL of its own/);
  }
  assert.deepEqual(requests, []);
});

test("Django's CSRF token is sent, and the headers that a page adds, asked for each time", async () => {
  globalThis.document = { cookie: "a=b; csrftoken=xyz" };
  let count = 0;
  const { requests, writes } = recorded({ headers: async () => ({ authorization: `Bearer ${(count += 1)}` }) });
  await writes.delete(1);
  await writes.delete(2);
  assert.deepEqual(
    requests.map(([, , headers]) => [headers["x-csrftoken"], headers.authorization]),
    [["xyz", "Bearer 1"], ["xyz", "Bearer 2"]],
  );
});

test("receipts are read of a response, of a text, and of what has headers; anything else has none", () => {
  const headers = { "rowcast-transaction": "t1, t2" };
  assert.deepEqual(receiptsIn(new Response(null, { headers })), ["t1", "t2"]);
  assert.deepEqual(receiptsIn({ status: 200, headers: new Headers(headers) }), ["t1", "t2"]);
  assert.deepEqual(receiptsIn("t3"), ["t3"]);
  for (const none of [new Response(null), {}, { headers }, null, undefined, true, ""]) {
    assert.deepEqual(receiptsIn(none), []);
  }
});

test("a redirection is not followed, which would look like a success, and is a refusal", async () => {
  let init;
  const writes = rest("/api/tasks/", { fetch: async (_, given) => (init = given) });
  await writes.delete(1);
  assert.equal(init.redirect, "manual");
  const redirected = { ok: false, status: 0, type: "opaqueredirect", headers: new Headers() };
  assert.throws(() => receiptsIn(redirected), /redirected the write, .*is the session over/);
});

test("a request without an answer is given up", async () => {
  const fetch = (_, { signal }) =>
    new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  // The signal's own timer does not keep the process.
  const keep = setInterval(() => {}, 1000);
  await assert.rejects(rest("/api/tasks/", { fetch, timeout: 5 }).delete(1), { name: "TimeoutError" });
  clearInterval(keep);
});

test("a response that is not ok is a refusal, whose body the page can read", async () => {
  const response = new Response('{"detail":"no"}', { status: 403, statusText: "Forbidden" });
  assert.throws(
    () => receiptsIn(response),
    (error) => error instanceof RefusedError && error.status === 403 && error.message.endsWith("403 Forbidden"),
  );
  assert.deepEqual(await response.json(), { detail: "no" });
});
