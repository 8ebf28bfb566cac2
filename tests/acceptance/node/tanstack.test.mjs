/** The adapter of the documentation for TanStack DB, word for word, with its real package. */

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { fakeWebSocket, loadClient, settle, URL_ } from "../client_js/server.mjs";

const PAGE = new URL("../../../docs/how-to/own-echo.md", import.meta.url);
const PACKAGES = fileURLToPath(new URL("node_modules", import.meta.url));

const { connect, rest } = await loadClient();

/** The files that the page shows, and beside them the client of the test. */
async function exampleOf(context) {
  const folder = await mkdtemp(join(tmpdir(), "tanstack-"));
  const page = await readFile(PAGE, "utf8");
  for (const [, name, text] of page.matchAll(/^```js title="src\/(\w+\.js)"\n(.*?)^```/gms)) {
    await writeFile(join(folder, name), text);
  }
  await symlink(PACKAGES, join(folder, "node_modules"));
  await writeFile(join(folder, "package.json"), '{"type": "module"}');
  globalThis.ofTheTest = context;
  await writeFile(join(folder, "client.js"), "export const { client, rest } = globalThis.ofTheTest;");
  try {
    return await import(pathToFileURL(join(folder, "cards.js")));
  } finally {
    await rm(folder, { recursive: true });
  }
}

let Socket;
let client;
let requests;
let cards;

beforeEach(async () => {
  requests = [];
  Socket = fakeWebSocket();
  client = connect(URL_, { WebSocket: Socket });
  Socket.last.accept();
  const fetch = (url, init) =>
    new Promise((answer) => requests.push({ url, ...init, answer: (status, headers) => answer(new Response(null, { status, headers })) }));
  ({ cards } = await exampleOf({
    rest: (url) => rest(url, { fetch }),
    client: { collection: (table) => client.collection(table, { topic: "room" }) },
  }));
  const ready = cards.preload();
  await settle();
  Socket.last.grant();
  Socket.last.tell("snapshot", "snapshot begins", { seq: 10 });
  change("INSERT", { id: 7, column: "todo" }, { snapshot: true });
  Socket.last.tell("snapshot", "snapshot complete", { seq: 10 });
  await ready;
});

afterEach(async () => {
  await cards.cleanup();
  client.close();
});

function change(type, row, more) {
  const images = type === "DELETE" ? { old_record: row } : { record: row };
  Socket.last.change([1], { schema: "public", table: "board_card", type, columns: [], errors: null, ...images, ...more });
}

const receipt = (tx) => ({ "Rowcast-Transaction": tx });
const shown = () => Object.fromEntries(cards.toArray.map(({ id, column }) => [id, column]));

/** Until what is under way has come to pass. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

async function asked() {
  await until(() => requests.length > 0);
  return requests.at(-1);
}

test("a write stays optimistic until its transaction has come, and never shows what was before", async () => {
  const seen = [];
  cards.subscribeChanges(() => seen.push(shown()[7]));
  const write = cards.update(7, (card) => (card.column = "done") && undefined);
  assert.equal(shown()[7], "done");
  const { method, url, body, answer } = await asked();
  assert.deepEqual([method, url, JSON.parse(body)], ["PATCH", "/api/cards/7/", { column: "done" }]);
  answer(200, receipt("t1"));
  change("UPDATE", { id: 8, column: "of another" }, { seq: 11, old_record: {} });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(write.state, "persisting");
  change("UPDATE", { id: 7, column: "done" }, { seq: 12, old_record: {}, tx: "t1" });
  await write.isPersisted.promise;
  await until(() => shown()[8] === "of another");
  assert.deepEqual(shown(), { 7: "done", 8: "of another" });
  assert.equal(seen.includes("todo"), false);
});

test("a row is inserted and deleted, with its echo before the answer", async () => {
  const insert = cards.insert({ id: 9, column: "todo" });
  const post = await asked();
  change("INSERT", { id: 9, column: "todo" }, { seq: 11, tx: "t1" });
  post.answer(201, receipt("t1"));
  await insert.isPersisted.promise;
  assert.deepEqual(shown(), { 7: "todo", 9: "todo" });
  const gone = cards.delete(9);
  await until(() => requests.length === 2);
  change("DELETE", { id: 9 }, { seq: 12, tx: "t2" });
  requests[1].answer(204, receipt("t2"));
  await gone.isPersisted.promise;
  assert.deepEqual(shown(), { 7: "todo" });
});

test("a refusal takes the write back", async () => {
  const write = cards.update(7, (card) => (card.column = "done") && undefined);
  (await asked()).answer(403);
  await assert.rejects(write.isPersisted.promise, /the server refused the write: 403/);
  assert.deepEqual(shown(), { 7: "todo" });
});
