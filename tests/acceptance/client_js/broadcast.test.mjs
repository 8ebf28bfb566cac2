/** Broadcasts: sent, acknowledged, received, as JSON and as bytes, live and from the store. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { fakeWebSocket, loadClient, settle, URL_ } from "./server.mjs";

const { connect, decodeFrame } = await loadClient();

const TOPIC = "realtime:room";

let Socket;
let client;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  Socket = fakeWebSocket();
});

afterEach(() => {
  client?.close();
  client = null;
  mock.timers.reset();
});

/** A channel that is joined, and what its page got. */
function joined(options = {}, event = "*") {
  client ??= connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  if (client.status.status !== "open") Socket.last.accept();
  const got = [];
  const channel = client.channel("room", options);
  channel.on("broadcast", { event }, (message) => got.push(message)).subscribe();
  Socket.last.grant();
  return { channel, got, socket: Socket.last };
}

function reconnect() {
  Socket.last.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
}

const utf8 = (text) => [...new TextEncoder().encode(text)];

/** The bytes of a broadcast as servers send it. */
function kind4({ topic = TOPIC, event = "ev", meta = "", encoding = 1, payload = "{}" } = {}) {
  const parts = [topic, event, meta].map((part) => (typeof part === "string" ? utf8(part) : part));
  const rest = typeof payload === "string" ? utf8(payload) : payload;
  return [4, ...parts.map((part) => part.length), encoding, ...parts.flat(), ...rest];
}

const decoded = (bytes) => decodeFrame(Uint8Array.from(bytes).buffer);

test("a broadcast of JSON has the official shape", async () => {
  const { channel, socket } = joined();
  await channel.send("ping", { n: 1 });
  await channel.send("bare");
  const [joinRef] = socket.join();
  assert.deepEqual(
    socket.of("broadcast").map(([join, , topic, , payload]) => [join, topic, payload]),
    [
      [joinRef, TOPIC, { type: "broadcast", event: "ping", payload: { n: 1 } }],
      [joinRef, TOPIC, { type: "broadcast", event: "bare", payload: {} }],
    ],
  );
});

test("bytes leave as a frame of kind 3, to the byte", async () => {
  const { channel, socket } = joined();
  await channel.send("ev", Uint8Array.of(0, 255).buffer);
  const [joinRef, ref] = socket.join();
  const next = String(Number(ref) + 1);
  assert.deepEqual(
    [...socket.sentBytes[0]],
    [
      ...[3, joinRef.length, next.length, 13, 2, 0, 0],
      ...utf8(joinRef), ...utf8(next), ...utf8(TOPIC), ...utf8("ev"),
      ...[0, 255],
    ],
  );
});

test("of a view only what it shows is sent, whatever kind of view it is", async () => {
  const { channel, socket } = joined();
  const buffer = Uint8Array.of(1, 2, 3, 4).buffer;
  await channel.send("e", new Uint8Array(buffer, 1, 2));
  await channel.send("e", new DataView(buffer, 2));
  await channel.send("e", new Uint16Array(buffer, 2, 1));
  await channel.send("e", new Uint8Array(0));
  const tail = (frame, size) => (size ? [...frame.slice(-size)] : []);
  assert.deepEqual(
    socket.sentBytes.map((frame, at) => tail(frame, [2, 2, 2, 0][at])),
    [[2, 3], [3, 4], [3, 4], []],
  );
});

test("a name too long for a binary frame is refused and nothing is sent", async () => {
  const { channel, socket } = joined();
  await channel.send("e".repeat(255), new Uint8Array(1));
  await assert.rejects(channel.send("é".repeat(128), new Uint8Array(1)), /event name of more than 255/);
  assert.equal(socket.sentBytes.length, 1);
});

test("what JSON cannot say is refused and nothing is sent", async () => {
  const { channel, socket } = joined();
  const loop = {};
  loop.loop = loop;
  await assert.rejects(channel.send("e", loop), TypeError);
  await assert.rejects(channel.send("e", 1n), TypeError);
  assert.equal(socket.of("broadcast").length, 0);
});

test("without ack a broadcast is done once it is sent, and needs a joined channel", async () => {
  const { channel, socket } = joined();
  await channel.send("ping", {});
  socket.drop();
  await assert.rejects(channel.send("ping", {}), /not joined but errored/);
  channel.unsubscribe();
  await assert.rejects(channel.send("ping", {}), /not joined but closed/);
});

test("self and ack are asked for with the join", () => {
  const { socket } = joined({ self: true, ack: true });
  assert.deepEqual(socket.join()[4].config.broadcast, { self: true, ack: true });
});

test("with ack a broadcast is done when the server says so", async () => {
  const { channel, socket } = joined({ ack: true });
  const done = [];
  channel.send("one", {}).then(() => done.push("one"));
  channel.send("two", {}).then(() => done.push("two"));
  const [one, two] = socket.of("broadcast");
  await settle();
  assert.deepEqual(done, []);
  for (const [joinRef, ref, topic] of [two, one]) {
    socket.receive(joinRef, ref, topic, "phx_reply", { status: "ok", response: {} });
  }
  await settle();
  assert.deepEqual(done, ["two", "one"]);
});

test("bytes are acknowledged, too", async () => {
  const { channel, socket } = joined({ ack: true });
  const sent = channel.send("ev", new Uint8Array(1));
  const ref = String(Number(socket.join()[1]) + 1);
  socket.receive(socket.join()[0], ref, TOPIC, "phx_reply", { status: "ok", response: {} });
  await sent;
});

test("a refused broadcast is rejected with the server's reason, in either shape", async () => {
  const { channel, socket } = joined({ ack: true });
  for (const response of [{ reason: "payload_size_exceeded" }, "payload_size_exceeded"]) {
    const sent = channel.send("big", {});
    socket.answer("broadcast", "error", response);
    await assert.rejects(sent, (error) => {
      assert.equal(error.message, "payload_size_exceeded");
      assert.deepEqual(error.cause, response);
      return true;
    });
  }
  const sent = channel.send("odd", {});
  socket.answer("broadcast", "error", { reason: { not: "text" } });
  await assert.rejects(sent, /^Error: refused$/);
});

test("a receipt that does not come in time is an error, and is no news when it comes later", async () => {
  const { channel, socket } = joined({ ack: true });
  const sent = channel.send("ping", {});
  mock.timers.tick(10000);
  await assert.rejects(sent, /no answer within 10 s/);
  socket.answer("broadcast");
  assert.equal(channel.status, "live");
});

test("a receipt of an older join is none", async () => {
  const { channel, socket } = joined({ ack: true });
  let done = false;
  channel.send("ping", {}).then(() => (done = true), () => {});
  const [, ref] = socket.of("broadcast")[0];
  socket.receive("0", ref, TOPIC, "phx_reply", { status: "ok", response: {} });
  await settle();
  assert.equal(done, false);
});

test("a broadcast whose connection is lost before the receipt is rejected at once", async () => {
  const { channel, socket } = joined({ ack: true });
  const lost = channel.send("ping", {});
  socket.drop();
  await assert.rejects(lost, /the connection was lost/);
  mock.timers.tick(1000);
  Socket.last.accept().grant();
  const left = channel.send("ping", {});
  channel.unsubscribe();
  await assert.rejects(left, /unsubscribed/);
});

test("answers that a page does not wait for are no fault when they cannot come", async () => {
  const faults = [];
  const note = (error) => faults.push(error);
  process.on("unhandledRejection", note);
  const { channel, socket } = joined({ ack: true });
  channel.send("ping", {});
  channel.track({ name: "Ada" });
  socket.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
  channel.send("ping", {});
  client.close();
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", note);
  assert.deepEqual(faults, []);
});

test("broadcasts reach the callbacks of their event and those of every event", () => {
  const { channel, got, socket } = joined({}, "ping");
  const all = [];
  channel.on("broadcast", { event: "*" }, ({ event }) => all.push(event));
  for (const event of ["ping", "pong"]) {
    socket.receive(null, null, TOPIC, "broadcast", { type: "broadcast", event, payload: { n: 1 } });
  }
  assert.deepEqual(got, [{ type: "broadcast", event: "ping", payload: { n: 1 } }]);
  assert.deepEqual(all, ["ping", "pong"]);
});

test("a broadcast of another topic, or without a name, goes to nobody who did not ask", () => {
  const { got, socket } = joined({}, "ping");
  socket.receive(null, null, "realtime:other", "broadcast", { event: "ping" });
  socket.receive(null, null, TOPIC, "broadcast", {});
  assert.deepEqual(got, []);
});

test("a frame of kind 4 is a broadcast, JSON or bytes, with its metadata", () => {
  assert.deepEqual(decoded(kind4({ meta: '{"id":"x"}', payload: '{"a":"ü"}' })), {
    joinRef: null,
    ref: null,
    topic: TOPIC,
    event: "broadcast",
    payload: { type: "broadcast", event: "ev", payload: { a: "ü" }, meta: { id: "x" } },
  });
  const bytes = decoded(kind4({ encoding: 0, payload: [0, 255] })).payload;
  assert.ok(bytes.payload instanceof ArrayBuffer);
  assert.deepEqual([...new Uint8Array(bytes.payload)], [0, 255]);
  assert.equal("meta" in bytes, false);
  assert.equal(decoded(kind4({ encoding: 0, payload: [] })).payload.payload.byteLength, 0);
});

test("bytes reach the page as they were sent", () => {
  const { got, socket } = joined({}, "ev");
  socket.receiveBytes(kind4({ encoding: 0, payload: [7, 8], meta: '{"replayed":true,"id":"i"}' }));
  const [{ event, payload, meta }] = got;
  assert.deepEqual([event, [...new Uint8Array(payload)], meta], ["ev", [7, 8], { replayed: true, id: "i" }]);
});

test("a malformed frame of kind 4 is reported, reaches nobody, and the next one does", () => {
  const { got, socket } = joined();
  const errors = [];
  client.on("error", (error) => errors.push(error));
  const good = kind4();
  const bad = [
    [], [4], good.slice(0, 4), // no header
    [0, ...good.slice(1)], [1, ...good.slice(1)], [2, ...good.slice(1)], // other kinds of Phoenix
    [3, ...good.slice(1)], [255, ...good.slice(1)],
    good.slice(0, 10), good.slice(0, 5), // cut within the names
    [4, 255, 255, 255, 1, ...utf8("realtime:room")], // lengths beyond the end
    kind4({ encoding: 2 }), kind4({ encoding: 255 }),
    kind4({ event: [0xff, 0xfe] }), kind4({ topic: [0xc3] }), kind4({ payload: [0x22, 0x80, 0x22] }),
    kind4({ payload: "" }), kind4({ payload: "{" }),
    kind4({ meta: "{" }), kind4({ meta: "[]" }), kind4({ meta: "null" }), kind4({ meta: "7" }),
  ];
  for (const bytes of bad) socket.receiveBytes(bytes);
  assert.deepEqual(errors.map((error) => error.name), bad.map(() => "SyntaxError"));
  assert.deepEqual(got, []);
  socket.receiveBytes(good);
  assert.deepEqual(got, [{ type: "broadcast", event: "ev", payload: {} }]);
});

test("whatever bytes come, a frame is read or refused, and never anything else", () => {
  let state = 11;
  const random = (below) => (state = (state * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 3000; round += 1) {
    const bytes = kind4({ meta: '{"id":"x"}', payload: '{"a":[1]}' });
    for (let count = 1 + random(4); count > 0; count -= 1) bytes[random(bytes.length)] = random(256);
    bytes.length = random(3) === 0 ? random(bytes.length) : bytes.length;
    try {
      const { event, payload } = decoded(bytes);
      assert.equal(event, "broadcast");
      assert.equal(typeof payload.event, "string");
    } catch (error) {
      assert.equal(error.name, "SyntaxError", error.stack);
    }
  }
});

test("names that objects have of their own are names like others", () => {
  const { channel, got, socket } = joined({}, "__proto__");
  const others = [];
  channel.on("broadcast", { event: "constructor" }, () => others.push("constructor"));
  const text = `[null,null,"${TOPIC}","broadcast",{"type":"broadcast","event":"__proto__","payload":{"__proto__":{"a":1}}}]`;
  socket.onmessage({ data: text });
  socket.receiveBytes(kind4({ event: "__proto__", payload: '{"__proto__":{"a":1}}' }));
  for (const { payload } of got) assert.deepEqual(Object.keys(payload), ["__proto__"]);
  assert.equal(got.length, 2);
  assert.equal({}.a, undefined);
  assert.deepEqual(others, []);
  socket.receiveBytes(kind4({ topic: "__proto__" }));
  socket.receive(null, "__proto__", "realtime:constructor", "phx_reply", { status: "ok" });
  assert.equal(got.length, 2);
});

test("stored broadcasts are asked for with every join of a private topic", () => {
  const replay = { since: new Date(1700000000000), limit: 5 };
  const { socket } = joined({ private: true, replay });
  const asked = { self: false, ack: false, replay: { since: 1700000000000, limit: 5 } };
  assert.deepEqual(socket.join()[4].config.broadcast, asked);
  reconnect();
  assert.deepEqual(Socket.last.join()[4].config.broadcast, asked);
});

test("a replay that no server would give is refused before it is asked for", () => {
  client = connect(URL_, { WebSocket: Socket });
  const ask = (options) => () => client.channel("room", options);
  assert.throws(ask({ replay: { since: 1 } }), /private: true/);
  for (const since of [undefined, null, "yesterday", 1.5, new Date(NaN)]) {
    assert.throws(ask({ private: true, replay: { since } }), /milliseconds since 1970/);
  }
});

test("a stored broadcast comes with its metadata, and after a rejoin once", () => {
  const { got, socket } = joined({ private: true, replay: { since: 1 } });
  const stored = (id, replayed = true) => {
    const meta = replayed ? { replayed, id } : { id };
    const payload = { type: "broadcast", event: "news", payload: { id }, meta };
    Socket.last.receive(Socket.last.join()[0], null, TOPIC, "broadcast", payload);
  };
  for (const id of ["a", "b"]) stored(id);
  stored("c", false);
  socket.receiveBytes(kind4({ event: "news", encoding: 0, payload: [1], meta: '{"replayed":true,"id":"d"}' }));
  reconnect();
  for (const id of ["b", "c", "d", "e"]) stored(id);
  assert.deepEqual(
    got.map(({ meta }) => [meta.id, meta.replayed ?? false]),
    [["a", true], ["b", true], ["c", false], ["d", true], ["e", true]],
  );
});

test("what a sender writes into a live broadcast does not hide another one", () => {
  const { got, socket } = joined({ private: true, replay: { since: 1 } });
  for (const meta of [{ id: "a" }, { id: "a" }, { id: 7 }, "a", null]) {
    socket.receive(null, null, TOPIC, "broadcast", { type: "broadcast", event: "e", payload: {}, meta });
  }
  assert.equal(got.length, 5);
});
