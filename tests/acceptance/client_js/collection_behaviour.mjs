/**
 * What a collection does over any client: the same tests for client.js and for rows.js.
 *
 * `setUp(Socket)` makes a client on this stand-in of a WebSocket, whose connection opens. It
 * returns `collection(options)`, of the table "task" on the topic "room", and `end()`.
 */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { fakeWebSocket, settle } from "./server.mjs";
import { writingBehaviour } from "./writing_behaviour.mjs";

export function collectionBehaviour(name, setUp) {
  describe(name, () => {
    let Socket;
    let client;
    let lines;

    beforeEach(async () => {
      mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
      lines = mock.method(console, "error", () => {});
      Socket = fakeWebSocket();
      client = await setUp(Socket);
    });

    afterEach(() => {
      client.end();
      mock.restoreAll();
      mock.timers.reset();
    });

    const logged = () => lines.mock.calls.map(({ arguments: [line] }) => line);

    /** What came is shown. */
    async function pass(ms = 0) {
      await settle();
      mock.timers.tick(ms);
      await settle();
      mock.timers.tick(0);
      await settle();
    }

    function row(type, cells, more = {}) {
      const images = type === "DELETE" ? { old_record: cells } : { record: cells };
      Socket.last.change([1], { schema: "public", table: "task", type, columns: [], errors: null, ...images, ...more });
    }

    function sendSnapshot(cells, { message = "snapshot complete", seq = 10, keys } = {}) {
      Socket.last.tell("snapshot", "snapshot begins", { seq, keys });
      for (const one of cells) row("INSERT", one, { seq, snapshot: true });
      Socket.last.tell("snapshot", message, { seq, count: cells.length });
    }

    /** A collection whose join is sent, and what its listener was told. */
    async function joining(options) {
      const collection = client.collection({ topic: "room", ...options });
      const told = [];
      collection.subscribe((batch) => told.push({ ...batch, ids: collection.rows.map(({ id }) => id) }));
      await pass();
      return { collection, told };
    }

    async function live(cells, options) {
      const made = await joining(options);
      Socket.last.grant();
      await pass();
      sendSnapshot(cells);
      await pass();
      assert.equal(made.collection.status, "live");
      made.told.length = 0;
      return made;
    }

    /** The connection is lost, and the next one is open and has joined. */
    async function returned() {
      Socket.last.drop();
      await pass();
      await reopened();
      Socket.last.grant({ head: { epoch: "e1", seq: 30 } });
      await pass();
    }

    async function reopened() {
      const lost = Socket.last;
      await pass(1000);
      assert.notEqual(Socket.last, lost);
      Socket.last.accept();
      await pass();
    }

    /** After a return: all that was missed is sent. */
    const caughtUp = () => Socket.last.tell("resume", "caught up", { seq: 30 });

    const ids = ({ rows }) => rows.map(({ id }) => id);

    test("the join asks for the rows and for an exact set of them", async () => {
      await joining({ filter: "a=gt.1", select: ["id", "a"] });
      assert.deepEqual(Socket.last.asked(), [
        { event: "*", schema: "public", table: "task", snapshot: true, live: true, filter: "a=gt.1", select: ["id", "a"] },
      ]);
    });

    test("rows are shown together once the snapshot is complete, and then it is live", async () => {
      const { collection, told } = await joining({ order: "-id" });
      assert.equal(collection.status, "joining");
      Socket.last.grant();
      await pass();
      assert.equal(collection.status, "catching up");
      Socket.last.tell("snapshot", "snapshot begins", { seq: 10 });
      row("INSERT", { id: 1 }, { snapshot: true });
      await pass();
      assert.equal(collection.size, 0);
      row("INSERT", { id: 2 }, { snapshot: true });
      Socket.last.tell("snapshot", "snapshot complete", { seq: 10 });
      await pass();
      assert.equal(collection.status, "live");
      assert.deepEqual([...collection], [{ id: 2 }, { id: 1 }]);
      assert.deepEqual([...collection.keys()], [2, 1]);
      assert.deepEqual([...collection.entries()], [[2, { id: 2 }], [1, { id: 1 }]]);
      const { ids: shown, snapshot, status } = told.at(-1);
      assert.deepEqual([shown, snapshot, status], [[2, 1], true, "live"]);
    });

    test("it is not live before the server has confirmed that changes flow", async () => {
      const { collection } = await joining();
      Socket.last.grant({ confirm: false });
      sendSnapshot([]);
      await pass();
      assert.notEqual(collection.status, "live");
      Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL");
      await pass();
      assert.equal(collection.status, "live");
    });

    test("changes come, change and take rows, and what comes together is told once", async () => {
      const { collection, told } = await live([{ id: 1, a: 1 }, { id: 2, a: 1 }]);
      row("INSERT", { id: 3, a: 1 }, { seq: 11 });
      row("UPDATE", { id: 1, a: 2 }, { seq: 12, old_record: {} });
      row("DELETE", { id: 2 }, { seq: 13 });
      assert.deepEqual(ids(collection), [1, 2]);
      await pass();
      assert.deepEqual(collection.get(1), { id: 1, a: 2 });
      assert.equal(collection.has(2), false);
      assert.equal(collection.has(3), true);
      assert.equal(told.length, 1);
      assert.equal(told[0].snapshot, false);
      assert.deepEqual(told[0].changes, [
        { key: 3, before: undefined, after: { id: 3, a: 1 } },
        { key: 1, before: { id: 1, a: 1 }, after: { id: 1, a: 2 } },
        { key: 2, before: { id: 2, a: 1 }, after: undefined },
      ]);
    });

    test("each change of the stream is handed on as it arrives, and rows of a snapshot are not", async () => {
      const seen = [];
      const onChange = ({ eventType, new: now }) => seen.push([eventType, now]);
      const { collection } = await live([{ id: 1 }], { onChange });
      assert.deepEqual(seen, []);
      row("UPDATE", { id: 1, a: 1 }, { seq: 11, old_record: {} });
      row("UPDATE", { id: 1, a: 2 }, { seq: 12, old_record: {} });
      assert.deepEqual(seen, [["UPDATE", { id: 1, a: 1 }], ["UPDATE", { id: 1, a: 2 }]]);
      assert.deepEqual(collection.get(1), { id: 1 });
    });

    test("what came before the connection was lost is shown with the loss", async () => {
      const { collection, told } = await live([]);
      row("INSERT", { id: 1 }, { seq: 11 });
      Socket.last.drop();
      assert.equal(collection.status, "errored");
      assert.deepEqual(ids(collection), [1]);
      assert.equal(told.length, 1);
    });

    test("the same change twice is told once", async () => {
      const { told } = await live([]);
      row("INSERT", { id: 3 }, { seq: 11 });
      await pass();
      row("INSERT", { id: 3 }, { seq: 11 });
      await pass();
      assert.equal(told.length, 1);
    });

    test("a key of several columns", async () => {
      const { collection } = await live([{ a: 1, b: 1 }, { a: 1, b: 2 }], { key: ["a", "b"] });
      row("DELETE", { a: 1, b: 1 }, { seq: 11 });
      await pass();
      assert.deepEqual(collection.rows, [{ a: 1, b: 2 }]);
      assert.deepEqual(collection.get([1, 2]), { a: 1, b: 2 });
    });

    test("a key that the server names, and of several columns in its order", async () => {
      const { collection } = await joining();
      Socket.last.grant();
      await pass();
      const keys = [
        { schema: "public", table: "other", columns: ["c"] },
        { schema: "public", table: "task", columns: ["b", "a"] },
      ];
      sendSnapshot([{ a: 1, b: 1 }, { a: 1, b: 2 }], { keys });
      await pass();
      assert.equal(collection.status, "live");
      assert.deepEqual(collection.get([2, 1]), { a: 1, b: 2 });
      row("DELETE", { a: 1, b: 1 }, { seq: 11 });
      await pass();
      assert.deepEqual(collection.rows, [{ a: 1, b: 2 }]);
    });

    test("a key that the page names is kept, whatever the server says", async () => {
      const { collection } = await joining({ key: "code" });
      Socket.last.grant();
      await pass();
      sendSnapshot([{ id: 1, code: "x" }], { keys: [{ schema: "public", table: "task", columns: ["id"] }] });
      await pass();
      assert.deepEqual(collection.get("x"), { id: 1, code: "x" });
    });

    test("rows that went while the connection was lost vanish, and the set is never empty meanwhile", async () => {
      const { collection, told } = await live([{ id: 1 }, { id: 2 }]);
      Socket.last.drop();
      await pass();
      assert.equal(collection.status, "errored");
      await reopened();
      Socket.last.grant({ head: { epoch: "e1", seq: 30 } });
      await pass();
      assert.equal(collection.status, "catching up");
      sendSnapshot([{ id: 2 }, { id: 3 }], { seq: 30 });
      Socket.last.tell("resume", "caught up", { seq: 30 });
      await pass();
      assert.equal(collection.status, "live");
      assert.deepEqual(ids(collection), [2, 3]);
      assert.equal(told.every(({ ids: shown }) => shown.length === 2), true);
      assert.deepEqual(told.at(-1).changes.map(({ key, after }) => [key, after !== undefined]), [[1, false], [3, true]]);
    });

    test("a snapshot that the lost connection cut off changes nothing", async () => {
      const { collection } = await live([{ id: 1 }, { id: 2 }]);
      await returned();
      Socket.last.tell("snapshot", "snapshot begins", { seq: 30 });
      row("INSERT", { id: 9 }, { snapshot: true, seq: 30 });
      await pass();
      await returned();
      assert.deepEqual(ids(collection), [1, 2]);
      sendSnapshot([{ id: 2 }], { seq: 31 });
      await pass();
      assert.deepEqual(ids(collection), [2]);
    });

    test("a set that begins anew while it is live is replaced when that is complete", async () => {
      const { collection, told } = await live([{ id: 1 }, { id: 2 }]);
      Socket.last.tell("snapshot", "snapshot begins", { seq: 20 });
      row("INSERT", { id: 2 }, { snapshot: true, seq: 20 });
      await pass();
      assert.equal(collection.status, "catching up");
      assert.deepEqual(ids(collection), [1, 2]);
      Socket.last.tell("snapshot", "snapshot complete", { seq: 20 });
      await pass();
      assert.equal(collection.status, "live");
      assert.deepEqual(ids(collection), [2]);
      assert.deepEqual(told.map(({ ids: shown }) => shown.length), [2, 1]);
    });

    test("where the server cannot say what was missed, all rows are read again on a new channel", async () => {
      const { collection } = await live([{ id: 1 }, { id: 2 }]);
      Socket.last.tell("resume", "resync required", { seq: 40 });
      await pass();
      assert.equal(collection.status, "catching up");
      assert.deepEqual(ids(collection), [1, 2]);
      assert.equal(Socket.last.of("phx_leave").length, 1);
      await pass(1500);
      assert.equal(Socket.last.of("phx_join").length, 2);
      assert.equal(Socket.last.asked()[0].since, undefined);
      Socket.last.grant();
      await pass();
      sendSnapshot([{ id: 2 }], { seq: 40 });
      await pass();
      assert.equal(collection.status, "live");
      assert.deepEqual(ids(collection), [2]);
    });

    test("an error of the server is its status and one line of the console, hint included", async () => {
      const { collection } = await joining();
      Socket.last.grant({ confirm: false });
      const hint = { hint: "did you mean 'tasks'?" };
      Socket.last.complain("postgres_changes", "no published table", hint);
      Socket.last.complain("postgres_changes", "no published table", hint);
      await pass();
      assert.equal(collection.status, "errored");
      assert.equal(collection.error.message, "no published table (did you mean 'tasks'?)");
      const about = logged().filter((line) => line.includes("no published table (did you mean 'tasks'?)"));
      assert.equal(about.length, 1);
      await pass(120000);
      assert.equal(collection.error.message, "no published table (did you mean 'tasks'?)");
    });

    test("a subscription of which nothing will come says so on the console", async () => {
      await joining();
      Socket.last.grant({ confirm: false });
      Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL", { hint: "nobody numbers changes" });
      await pass();
      assert.equal(logged().filter((line) => line.includes("nobody numbers changes")).length, 1);
    });

    test("a refused join is its status, and a later one succeeds", async () => {
      const { collection } = await joining();
      Socket.last.refuse("Unauthorized: no");
      await pass();
      assert.equal(collection.status, "errored");
      assert.match(collection.error.message, /Unauthorized: no/);
      assert.equal(logged().some((line) => line.includes("Unauthorized: no")), true);
      await pass(1500);
      Socket.last.grant();
      await pass();
      sendSnapshot([{ id: 1 }]);
      await pass();
      assert.equal(collection.status, "live");
      assert.equal(collection.error, null);
    });

    test("a server that falls silent before it has sent the rows is reported, until it goes on", async () => {
      const { collection } = await joining();
      Socket.last.grant();
      await pass();
      // Heartbeats are answered all the while.
      for (let beat = 0; beat < 3; beat += 1) {
        await pass(25000);
        Socket.last.pulse();
      }
      await pass();
      assert.equal(collection.status, "errored");
      assert.match(collection.error.message, /nothing of what it owes for 60 s/);
      sendSnapshot([{ id: 1 }]);
      await pass();
      assert.equal(collection.status, "live");
    });

    test("a live server may say nothing as long as it likes", async () => {
      const { collection } = await live([]);
      for (let beat = 0; beat < 4; beat += 1) {
        await pass(25000);
        Socket.last.pulse();
      }
      await pass();
      assert.equal(collection.status, "live");
    });

    test("rows whose key is another are an error that says what to do", async () => {
      const { collection } = await joining();
      Socket.last.grant();
      sendSnapshot([{ uuid: "x" }]);
      await pass();
      assert.equal(collection.status, "errored");
      assert.match(collection.error.message, /without id .*option "key"/);
      assert.equal(logged().filter((line) => line.includes('option "key"')).length, 1);
      assert.equal(collection.size, 0);
    });

    test("rows whose key is another stay an error after a rejoin that brings no other rows", async () => {
      const { collection } = await joining();
      Socket.last.grant();
      sendSnapshot([{ uuid: "x" }]);
      await pass();
      await returned();
      Socket.last.tell("resume", "caught up", { seq: 30 });
      await pass();
      assert.equal(collection.status, "errored");
      assert.match(collection.error.message, /without id /);
      sendSnapshot([{ id: 1 }], { seq: 31 });
      await pass();
      assert.equal(collection.status, "live");
      assert.equal(collection.error, null);
      assert.deepEqual(ids(collection), [1]);
    });

    test("too many rows to send are a part of them, and it says so", async () => {
      const { collection } = await joining();
      Socket.last.grant();
      await pass();
      sendSnapshot([{ id: 1 }], { message: "snapshot truncated" });
      await pass();
      assert.equal(collection.truncated, true);
      assert.equal(collection.size, 1);
      assert.equal(logged().filter((line) => line.includes("filter for fewer")).length, 1);
    });

    test("an order by a column that no row has is a line of the console", async () => {
      await live([{ id: 1, title: "a" }], { order: ["-titel", "id"] });
      assert.deepEqual(
        logged().filter((line) => line.includes("the order names")),
        ["task: the order names titel, and no row has such a column"],
      );
    });

    test("rows that the page has already are shown until the server's are there", async () => {
      const { collection, told } = await joining({ initial: [{ id: 1 }, { id: 2 }] });
      assert.deepEqual(ids(collection), [1, 2]);
      Socket.last.grant();
      await pass();
      sendSnapshot([{ id: 2 }]);
      await pass();
      assert.deepEqual(ids(collection), [2]);
      assert.deepEqual(told.at(-1).changes.map(({ key }) => key), [1]);
    });

    test("the array of rows is the same until rows change", async () => {
      const { collection } = await live([{ id: 1 }]);
      const { getRows, getStatus } = collection;
      const rows = getRows();
      assert.equal(rows, collection.rows);
      assert.equal(getStatus(), "live");
      row("UPDATE", { id: 1 }, { seq: 11 });
      await pass();
      assert.equal(getRows(), rows);
      row("UPDATE", { id: 1, a: 1 }, { seq: 12 });
      await pass();
      assert.notEqual(getRows(), rows);
    });

    test("a listener is told until it is removed, and one that fails stops no other", async () => {
      const { collection } = await live([]);
      const heard = [];
      collection.subscribe(() => {
        throw new Error("of the page");
      });
      const stop = collection.subscribe(() => heard.push("a"));
      const { subscribe } = collection;
      subscribe(() => heard.push("b"));
      row("INSERT", { id: 1 }, { seq: 11 });
      await pass();
      stop();
      row("INSERT", { id: 2 }, { seq: 12 });
      await pass();
      assert.deepEqual(heard, ["a", "b", "b"]);
    });

    test("a listener that closes it is the last that is told", async () => {
      const { collection } = await live([]);
      const heard = [];
      collection.subscribe(() => collection.close());
      collection.subscribe(() => heard.push("after"));
      row("INSERT", { id: 1 }, { seq: 11 });
      await pass();
      assert.deepEqual(heard, []);
      assert.equal(collection.status, "closed");
    });

    test("closed it leaves, keeps its rows, and tells nobody of anything more", async () => {
      const { collection, told } = await live([{ id: 1 }]);
      row("INSERT", { id: 2 }, { seq: 11 });
      collection.close();
      collection.close();
      await pass();
      assert.equal(collection.status, "closed");
      assert.deepEqual(ids(collection), [1]);
      assert.deepEqual(told, []);
      assert.equal(Socket.last.of("phx_leave").length, 1);
    });

    writingBehaviour({ logged, pass, row, sendSnapshot, live, returned, caughtUp });

    test("an unknown option, or no table, is refused at once", () => {
      assert.throws(() => client.collection({ oder: "id" }), /no option oder; there are .*order/);
      assert.throws(() => client.collection({}, "*"), /of one table/);
    });
  });
}
