/** rows.js over channels of the official clients, unmodified. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { RealtimeClient } from "@supabase/realtime-js";

import { collectionBehaviour } from "../client_js/collection_behaviour.mjs";
import { fakeWebSocket, loadClient, settle } from "../client_js/server.mjs";

const { rows } = await loadClient("rows.js");

function realtime(Socket) {
  return new RealtimeClient("ws://server.test/realtime/v1", {
    params: { apikey: "k" },
    transport: Socket,
    reconnectAfterMs: () => 1000,
  });
}

async function setUp(Socket, source) {
  const client = realtime(Socket);
  client.connect();
  Socket.last.accept();
  await settle();
  return {
    collection: (options, table = "task") => source(client, table, options),
    end: () => client.disconnect(),
  };
}

collectionBehaviour("rows of a client", (Socket) => setUp(Socket, (client, table, options) => rows(client, table, options)));

describe("rows", () => {
  beforeEach(() => mock.timers.enable({ apis: ["setTimeout", "setInterval"] }));

  afterEach(() => mock.timers.reset());

  test("rows of a channel: it is subscribed, and what else it does goes on", async () => {
    const Socket = fakeWebSocket();
    const client = realtime(Socket);
    client.connect();
    Socket.last.accept();
    try {
      const heard = [];
      const channel = client.channel("room").on("broadcast", { event: "hello" }, ({ payload }) => heard.push(payload));
      const tasks = rows(channel, "task");
      await settle();
      Socket.last.grant();
      Socket.last.tell("snapshot", "snapshot begins", { seq: 10 });
      Socket.last.change([1], { schema: "public", table: "task", type: "INSERT", columns: [], errors: null, record: { id: 1 } });
      Socket.last.tell("snapshot", "snapshot complete", { seq: 10 });
      Socket.last.receive(null, null, "realtime:room", "broadcast", { type: "broadcast", event: "hello", payload: { a: 1 } });
      await settle();
      mock.timers.tick(0);
      assert.equal(tasks.status, "live");
      assert.deepEqual(tasks.rows, [{ id: 1 }]);
      assert.deepEqual(heard, [{ a: 1 }]);
      assert.throws(() => rows(channel, "note"), /feeds a collection already/);

      const lines = mock.method(console, "error", () => {});
      Socket.last.tell("resume", "resync required", { seq: 20 });
      mock.timers.tick(0);
      assert.equal(tasks.status, "errored");
      assert.match(tasks.error.message, /make a new channel, or pass the client/);
      assert.equal(lines.mock.callCount(), 1);
    } finally {
      client.disconnect();
      mock.restoreAll();
    }
  });

  test("what is neither client nor free channel is refused, and says so", () => {
    const client = realtime(fakeWebSocket());
    assert.throws(() => rows({}, "task"), /takes a client .* or a channel/);
    assert.throws(() => rows(client.channel("a"), "task", { private: true }), /where the channel is made/);
    const channel = client.channel("b");
    channel.subscribe();
    assert.throws(() => rows(channel, "task"), /subscribed already/);
    client.disconnect();
  });

  test("a topic in use is an error, and the channel that has it stays", async () => {
    const Socket = fakeWebSocket();
    const client = realtime(Socket);
    client.connect();
    Socket.last.accept();
    const lines = mock.method(console, "error", () => {});
    try {
      const taken = client.channel("room").subscribe();
      const tasks = rows(client, "task", { topic: "room" });
      await settle();
      mock.timers.tick(0);
      assert.equal(tasks.status, "errored");
      assert.match(tasks.error.message, /after `subscribe\(\)`/);
      assert.equal(lines.mock.callCount(), 1);
      tasks.close();
      assert.deepEqual(client.getChannels(), [taken]);
    } finally {
      client.disconnect();
      mock.restoreAll();
    }
  });

  test("a client whose token cannot be had does not join without one, and tries again", async () => {
    const Socket = fakeWebSocket();
    const lines = mock.method(console, "error", () => {});
    let isOffline = true;
    const client = new RealtimeClient("ws://server.test/realtime/v1", {
      params: { apikey: "k" },
      transport: Socket,
      accessToken: async () => {
        if (isOffline) throw new Error("no session");
        return "jwt";
      },
    });
    try {
      const tasks = rows(client, "task", { topic: "room" });
      await settle();
      await settle();
      assert.equal(tasks.status, "errored");
      assert.equal(tasks.error.message, "no session");
      assert.deepEqual(client.getChannels(), []);
      mock.timers.tick(2000);
      await settle();
      await settle();
      const failures = lines.mock.calls.filter(({ arguments: [line] }) => line === "task: no session");
      assert.equal(failures.length, 1);
      isOffline = false;
      mock.timers.tick(4000);
      for (let turn = 0; turn < 4; turn += 1) await settle();
      Socket.last.accept();
      await settle();
      assert.equal(Socket.last.join()[4].access_token, "jwt");
      tasks.close();
    } finally {
      client.disconnect();
      mock.restoreAll();
    }
  });

  test("a client that asks for its token has it before it joins", async () => {
    const Socket = fakeWebSocket();
    const client = new RealtimeClient("ws://server.test/realtime/v1", {
      params: { apikey: "k" },
      transport: Socket,
      accessToken: async () => "jwt",
    });
    const tasks = rows(client, "task", { topic: "room" });
    await settle();
    await settle();
    Socket.last.accept();
    await settle();
    assert.equal(Socket.last.join()[4].access_token, "jwt");
    tasks.close();
    client.disconnect();
  });
});
