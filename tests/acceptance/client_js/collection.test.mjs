/** Collections of client.js. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { collectionBehaviour } from "./collection_behaviour.mjs";
import { fakeWebSocket, loadClient, URL_ } from "./server.mjs";

const { connect } = await loadClient();

collectionBehaviour("client.collection", async (Socket) => {
  const client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  return {
    collection: (options, table = "task") => client.collection(table, options),
    end: () => client.close(),
  };
});

function opened() {
  const Socket = fakeWebSocket();
  const client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  return { Socket, client };
}

test("what was missed is replayed from where the collection was, and shown when all is there", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { Socket, client } = opened();
  try {
    const tasks = client.collection("task", { topic: "room" });
    Socket.last.grant();
    Socket.last.tell("snapshot", "snapshot begins", { seq: 10 });
    Socket.last.tell("snapshot", "snapshot complete", { seq: 10, count: 0 });
    mock.timers.tick(0);
    assert.equal(tasks.status, "live");
    Socket.last.drop();
    mock.timers.tick(1000);
    Socket.last.accept();
    assert.equal(Socket.last.asked()[0].since, "e1:10");
    Socket.last.grant({ head: { epoch: "e1", seq: 12 } });
    const change = { schema: "public", table: "task", type: "INSERT", columns: [], errors: null };
    Socket.last.change([1], { ...change, seq: 11, record: { id: 1 } });
    mock.timers.tick(0);
    assert.equal(tasks.size, 0);
    assert.equal(tasks.status, "catching up");
    Socket.last.change([1], { ...change, seq: 12, record: { id: 2 } });
    Socket.last.tell("resume", "caught up", { seq: 12 });
    mock.timers.tick(0);
    assert.equal(tasks.size, 2);
    assert.equal(tasks.status, "live");
  } finally {
    client.close();
    mock.timers.reset();
  }
});

test("after a sign-out the rows of the former are never live: the set begins anew", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(console, "error", () => {});
  const { Socket, client } = opened();
  const insert = { schema: "public", table: "task", type: "INSERT", columns: [], errors: null };
  try {
    const tasks = client.collection("task", { topic: "room" });
    const live = [];
    tasks.subscribe(({ status }) => status === "live" && live.push(tasks.rows.map(({ id }) => id)));
    Socket.last.grant({ subject: "ada" });
    Socket.last.tell("snapshot", "snapshot begins", { seq: 10 });
    Socket.last.change([1], { ...insert, seq: 10, snapshot: true, record: { id: 1 } });
    Socket.last.tell("snapshot", "snapshot complete", { seq: 10, count: 1 });
    mock.timers.tick(0);
    Socket.last.drop(4401, "Token has been revoked");
    mock.timers.tick(1000);
    Socket.last.accept();
    assert.equal(Socket.last.asked()[0].since, "e1:10");
    Socket.last.grant({ subject: "anon", head: { epoch: "e1", seq: 12 } });
    mock.timers.tick(0);
    assert.equal(tasks.status, "joining");
    assert.equal(Socket.last.asked()[0].since, undefined);
    Socket.last.grant({ subject: "anon", firstId: 2, head: { epoch: "e1", seq: 12 } });
    mock.timers.tick(0);
    assert.equal(tasks.status, "catching up");
    Socket.last.tell("snapshot", "snapshot begins", { seq: 12 });
    Socket.last.change([2], { ...insert, seq: 12, snapshot: true, record: { id: 2 } });
    Socket.last.tell("snapshot", "snapshot complete", { seq: 12, count: 1 });
    mock.timers.tick(0);
    assert.equal(tasks.status, "live");
    assert.deepEqual(live, [[1], [2]]);
  } finally {
    client.close();
    mock.restoreAll();
    mock.timers.reset();
  }
});

test("the client closed while all rows were to be read again: the collection is closed, too", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const { Socket, client } = opened();
  try {
    const tasks = client.collection("task", { topic: "room" });
    Socket.last.grant();
    Socket.last.tell("resume", "resync required", { seq: 20 });
    client.close();
    mock.timers.tick(2000);
    assert.equal(tasks.status, "closed");
    assert.equal(Socket.last.of("phx_join").length, 1);
  } finally {
    mock.timers.reset();
  }
});

test("a topic that the page takes while all rows are to be read again is an error, and stays the page's", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const lines = mock.method(console, "error", () => {});
  const { Socket, client } = opened();
  try {
    const tasks = client.collection("task", { topic: "room" });
    Socket.last.grant();
    Socket.last.tell("resume", "resync required", { seq: 20 });
    const taken = client.channel("room").subscribe();
    mock.timers.tick(2000);
    assert.equal(tasks.status, "errored");
    assert.match(tasks.error.message, /room is open already/);
    assert.equal(lines.mock.calls.filter(({ arguments: [line] }) => line.includes("room is open already")).length, 1);
    tasks.close();
    assert.equal(taken.status, "joining");
  } finally {
    client.close();
    mock.restoreAll();
    mock.timers.reset();
  }
});

test("two collections of one table are on channels of their own, of topics that no other page has", () => {
  const { Socket, client } = opened();
  try {
    client.collection("task");
    client.collection("task", { filter: "a=eq.1" });
    const topics = Socket.last.of("phx_join").map(([, , topic]) => topic);
    assert.equal(new Set(topics).size, 2);
    assert.equal(topics.every((topic) => /^realtime:rows:task:[0-9a-f]{32}$/.test(topic)), true);
  } finally {
    client.close();
  }
});

test("a topic that is open already is refused", () => {
  const { client } = opened();
  try {
    client.channel("room");
    assert.throws(() => client.collection("task", { topic: "room" }), /room is open already/);
  } finally {
    client.close();
  }
});
