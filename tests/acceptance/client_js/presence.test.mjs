/** Presence: who is there, who came and went, and this page among them. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { fakeWebSocket, loadClient, settle, URL_ } from "./server.mjs";

const { connect } = await loadClient();

const TOPIC = "realtime:room";
const ME = { name: "Me" };

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

/** A channel of key "me" that is joined, and what its page heard of others, in short. */
function joined(options = { presenceKey: "me" }) {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const channel = client.channel("room", options);
  const heard = [];
  const refs = (metas) => metas.map((meta) => meta.presence_ref).join("+");
  channel.on("presence", { event: "join" }, ({ event, key, currentPresences, newPresences }) =>
    heard.push(`${event} ${key}: ${refs(newPresences)} beside ${refs(currentPresences) || "none"}`),
  );
  channel.on("presence", { event: "leave" }, ({ event, key, currentPresences, leftPresences }) =>
    heard.push(`${event} ${key}: ${refs(leftPresences)} beside ${refs(currentPresences) || "none"}`),
  );
  let syncs = 0;
  channel.on("presence", { event: "sync" }, () => (syncs += 1));
  channel.subscribe();
  Socket.last.grant();
  return { channel, heard, syncs: () => syncs, socket: Socket.last };
}

/** `{ada: ["r1", "r2"]}` as the server writes it; a ref may come with its meta. */
function written(metas) {
  const entries = Object.entries(metas).map(([key, refs]) => [
    key,
    { metas: refs.map((ref) => (typeof ref === "string" ? { phx_ref: ref } : { phx_ref: ref[0], ...ref[1] })) },
  ]);
  return Object.fromEntries(entries);
}

const state = (metas) =>
  Socket.last.receive(Socket.last.join()[0], null, TOPIC, "presence_state", written(metas));
const diff = (joins, leaves = {}) =>
  Socket.last.receive(null, null, TOPIC, "presence_diff", { joins: written(joins), leaves: written(leaves) });

/** Who is there, ref by ref. */
const there = (channel) =>
  Object.fromEntries(
    Object.entries(channel.presenceState()).map(([key, metas]) => [key, metas.map((m) => m.presence_ref)]),
  );

function reconnect() {
  Socket.last.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
}

const tracks = () =>
  Socket.made.flatMap((socket) => socket.of("presence")).map(([, , , , { event, payload }]) => [event, payload]);

test("presence is asked for when the page listens to it, under the key it names", () => {
  joined();
  assert.deepEqual(Socket.last.join()[4].config.presence, { key: "me", enabled: true });
  client.channel("other").subscribe();
  assert.equal(Socket.last.join("realtime:other")[4].config.presence.enabled, false);
  const late = client.channel("other");
  assert.throws(() => late.on("presence", { event: "sync" }, () => {}), /presence is part of the join/);
});

test("a page that names no key has one of its own and keeps it", () => {
  joined({});
  const { key } = Socket.last.join()[4].config.presence;
  assert.match(key, /^[0-9a-f]{32}$/);
  reconnect();
  assert.equal(Socket.last.join()[4].config.presence.key, key);
});

test("a key that is a number is the text of it", () => {
  joined({ presenceKey: 7 });
  assert.equal(Socket.last.join()[4].config.presence.key, "7");
});

test("the state is who is there, and everybody in it has joined", () => {
  const { channel, heard, syncs } = joined();
  state({ ada: [["r1", { name: "Ada" }], "r2"], ben: ["r3"] });
  assert.deepEqual(heard, ["join ada: r1+r2 beside none", "join ben: r3 beside none"]);
  assert.equal(syncs(), 1);
  assert.deepEqual(channel.presenceState().ada, [
    { name: "Ada", presence_ref: "r1" },
    { presence_ref: "r2" },
  ]);
});

test("an empty state is a state", () => {
  const { channel, syncs } = joined();
  state({});
  assert.equal(syncs(), 1);
  assert.deepEqual(there(channel), {});
});

test("a diff brings and takes metas by their ref", () => {
  const { channel, heard } = joined();
  state({ ada: ["r1"] });
  heard.length = 0;
  diff({ ada: ["r2"], ben: ["r3"] });
  diff({}, { ada: ["r1"], ben: ["r3"] });
  assert.deepEqual(there(channel), { ada: ["r2"] });
  assert.deepEqual(heard, [
    "join ada: r2 beside r1",
    "join ben: r3 beside none",
    "leave ada: r1 beside r2",
    "leave ben: r3 beside none",
  ]);
});

test("a meta that changes is a join of the new one and a leave of the old", () => {
  const { channel, heard } = joined();
  state({ ada: ["r1"] });
  heard.length = 0;
  diff({ ada: [["r2", { phx_ref_prev: "r1", mood: "well" }]] }, { ada: ["r1"] });
  assert.deepEqual(heard, ["join ada: r2 beside r1", "leave ada: r1 beside r2"]);
  assert.deepEqual(channel.presenceState().ada, [{ mood: "well", presence_ref: "r2" }]);
});

test("what is known already is no join, and who is not there cannot leave", () => {
  const { channel, heard } = joined();
  state({ ada: ["r1"] });
  heard.length = 0;
  diff({ ada: ["r1"] }, { ada: ["r9"], ben: ["r8"] });
  assert.deepEqual(heard, []);
  assert.deepEqual(there(channel), { ada: ["r1"] });
});

test("diffs that come before the state wait for it and then count on top of it", () => {
  const { channel, heard, syncs } = joined();
  diff({ ada: ["r1"] });
  diff({ ben: ["r2"] }, { cleo: ["r3"] });
  assert.deepEqual([there(channel), heard, syncs()], [{}, [], 0]);
  state({ ada: ["r1"], cleo: ["r3"] });
  assert.deepEqual(there(channel), { ada: ["r1"], ben: ["r2"] });
  assert.equal(syncs(), 1);
  assert.deepEqual(heard, [
    "join ada: r1 beside none",
    "join cleo: r3 beside none",
    "join ben: r2 beside none",
    "leave cleo: r3 beside none",
  ]);
});

test("a server that sends diffs without end and no state is joined anew", () => {
  const { channel } = joined();
  for (let count = 0; count < 500; count += 1) diff({ ada: [`r${count}`] });
  assert.equal(channel.status, "errored");
  mock.timers.tick(1000);
  Socket.last.grant();
  state({ ada: ["r1"] });
  assert.deepEqual(there(channel), { ada: ["r1"] });
});

test("after a lost connection only those who truly came or went are told", () => {
  const { channel, heard, syncs } = joined();
  state({ ada: ["r1"], ben: ["r2"], cleo: ["r3", "r4"] });
  heard.length = 0;
  reconnect();
  assert.deepEqual(there(channel), { ada: ["r1"], ben: ["r2"], cleo: ["r3", "r4"] });
  diff({ elif: ["r6"] });
  state({ ada: ["r1"], cleo: ["r4"], dana: ["r5"] });
  assert.deepEqual(heard, [
    "leave ben: r2 beside none",
    "leave cleo: r3 beside r4",
    "join dana: r5 beside none",
    "join elif: r6 beside none",
  ]);
  assert.equal(syncs(), 2);
  assert.deepEqual(there(channel), { ada: ["r1"], cleo: ["r4"], dana: ["r5"], elif: ["r6"] });
});

test("others who lost their connection too and are back are neither gone nor new", () => {
  const { channel, heard } = joined();
  state({ ada: [["r1", { at: { x: 1, y: [2] } }], ["r2", { at: null }]] });
  heard.length = 0;
  reconnect();
  state({ ada: [["r3", { at: { y: [2], x: 1 } }], ["r4", { at: "else" }]] });
  assert.deepEqual(heard, ["join ada: r4 beside r3", "leave ada: r2 beside r3+r4"]);
  assert.deepEqual(there(channel), { ada: ["r3", "r4"] });
});

test("track tells the server, and is done when it says so", async () => {
  const { channel, socket } = joined();
  let done = false;
  const tracked = channel.track(ME).then(() => (done = true));
  assert.deepEqual(socket.of("presence")[0].slice(2), [
    TOPIC, "presence", { type: "presence", event: "track", payload: ME },
  ]);
  await settle();
  assert.equal(done, false);
  socket.answer("presence");
  await tracked;
});

test("what is tracked before the channel is joined is told as soon as it is", async () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  const channel = client.channel("room", { presenceKey: "me" });
  const first = channel.track({ name: "Old" });
  const meta = { name: "New" };
  const second = channel.track(meta);
  meta.name = "Changed since";
  channel.subscribe();
  Socket.last.accept().grant();
  assert.deepEqual(tracks(), [["track", { name: "New" }]]);
  Socket.last.answer("presence");
  await Promise.all([first, second]);
});

test("a page that only tracks asks for presence all the same", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const channel = client.channel("room");
  channel.track(ME);
  channel.subscribe();
  assert.equal(Socket.last.join()[4].config.presence.enabled, true);
});

test("what cannot be tracked is refused before it is sent", async () => {
  const { channel } = joined();
  for (const meta of [null, undefined, "Ada", 7, ["Ada"]]) {
    await assert.rejects(channel.track(meta), /must be an object/);
  }
  await assert.rejects(channel.track({ n: 1n }), TypeError);
  assert.deepEqual(tracks(), []);
});

test("a meta whose answer is awaited is not sent twice, and one that was answered is", async () => {
  const { channel, socket } = joined();
  const first = channel.track({ a: 1, b: 2 });
  const second = channel.track({ b: 2, a: 1 });
  socket.answer("presence");
  await Promise.all([first, second]);
  assert.equal(tracks().length, 1);
  // The server may have taken it away meanwhile, with the right to be seen.
  const third = channel.track({ a: 1, b: 2 });
  assert.equal(tracks().length, 2);
  socket.answer("presence");
  await third;
});

test("untrack tells the server, and there is nothing left to track again", async () => {
  const { channel, socket } = joined();
  channel.track(ME);
  socket.answer("presence");
  await settle();
  const gone = channel.untrack();
  assert.deepEqual(socket.of("presence")[1][4], { type: "presence", event: "untrack" });
  socket.answer("presence");
  await gone;
  reconnect();
  assert.equal(Socket.last.of("presence").length, 0);
});

test("without a connection untrack is done at once, for nobody sees this page", async () => {
  const { channel, socket } = joined();
  channel.track(ME);
  socket.answer("presence");
  socket.drop();
  await channel.untrack();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
  assert.equal(Socket.last.of("presence").length, 0);
});

test("a refused track is rejected with the reason, and what was tracked before stays", async () => {
  const { channel, socket } = joined();
  channel.track(ME);
  socket.answer("presence");
  await settle();
  const refused = channel.track({ name: "x".repeat(99) });
  socket.answer("presence", "error", { reason: "Track message size exceeded" });
  await assert.rejects(refused, /^Error: Track message size exceeded$/);
  reconnect();
  assert.deepEqual(tracks().at(-1), ["track", ME]);
});

test("a first track that is refused is not tried again", async () => {
  const { channel, socket } = joined();
  const refused = channel.track(ME);
  socket.answer("presence", "error", { reason: "no" });
  await assert.rejects(refused, /^Error: no$/);
  reconnect();
  assert.equal(Socket.last.of("presence").length, 0);
});

test("a track that was under way when the connection was lost is done by the next one", async () => {
  const { channel, socket } = joined();
  const first = channel.track({ name: "First" });
  const second = channel.track({ name: "Second" });
  socket.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
  assert.deepEqual(Socket.last.of("presence").map((frame) => frame[4].payload), [{ name: "Second" }]);
  Socket.last.answer("presence");
  await Promise.all([first, second]);
});

test("a page that leaves before it could be tracked is told so", async () => {
  client = connect(URL_, { WebSocket: Socket });
  const channel = client.channel("room");
  const tracked = channel.track(ME);
  channel.unsubscribe();
  await assert.rejects(tracked, /unsubscribed/);
  await assert.rejects(channel.track(ME), /not joined but closed/);
});

/** Joined, tracked and seen, beside Ada; then the connection is lost and opened again. */
async function seenAndBack() {
  const made = joined();
  state({ ada: ["r1"] });
  made.channel.track(ME);
  made.socket.answer("presence");
  diff({ me: [["r2", ME]] });
  await settle();
  made.heard.length = 0;
  reconnect();
  return made;
}

test("after a reconnect this page is tracked again, and that is neither a leave nor a join", async () => {
  const { channel, heard } = await seenAndBack();
  assert.deepEqual(Socket.last.of("presence").map((frame) => frame[4].payload), [ME]);
  state({ ada: ["r1"] });
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r2"] });
  diff({ me: [["r3", { ...ME, seen_by: "the server" }]] });
  Socket.last.answer("presence");
  await settle();
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r3"] });
  assert.deepEqual(heard, []);
  diff({}, { me: ["r3"] });
  assert.deepEqual(heard, ["leave me: r3 beside none"]);
});

test("a server that has not noticed the loss yet has this page twice for a while, and that is no news", async () => {
  const { channel, heard } = await seenAndBack();
  state({ ada: ["r1"], me: [["r2", ME]] });
  diff({ me: [["r3", ME]] });
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r2", "r3"] });
  diff({}, { me: ["r2"] });
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r3"] });
  assert.deepEqual(heard, []);
  diff({}, { me: ["r3"] });
  assert.deepEqual(heard, ["leave me: r3 beside none"]);
});

test("losing the connection again and again leaves every join with one leave", async () => {
  const { channel, heard } = await seenAndBack();
  Socket.last.answer("presence");
  state({ me: [["r2", ME]] });
  diff({ me: [["r3", ME]] });
  reconnect();
  Socket.last.answer("presence");
  state({ me: [["r3", ME]] });
  diff({ me: [["r4", ME]] });
  reconnect();
  Socket.last.answer("presence");
  state({ me: [["r3", ME], ["r4", ME]] });
  diff({ me: [["r5", ME]] });
  diff({}, { me: ["r4", "r3"] });
  assert.deepEqual(there(channel), { me: ["r5"] });
  assert.deepEqual(heard, ["leave ada: r1 beside none"]);
  diff({}, { me: ["r5"] });
  assert.deepEqual(heard.slice(1), ["leave me: r5 beside none"]);
});

test("a page that may not be tracked again leaves when the server notices", async () => {
  const reported = mock.method(console, "error", () => {});
  const { heard } = await seenAndBack();
  state({ ada: ["r1"], me: [["r2", ME]] });
  Socket.last.answer("presence", "error", { reason: "no right" });
  await settle();
  diff({}, { me: ["r2"] });
  assert.deepEqual(heard, ["leave me: r2 beside none"]);
  reported.mock.restore();
});

test("tracking the same from a status callback is not a second time", async () => {
  const { channel, heard } = await seenAndBack();
  state({ ada: ["r1"] });
  channel.track({ ...ME });
  Socket.last.answer("presence");
  diff({ me: [["r3", ME]] });
  await settle();
  assert.equal(Socket.last.of("presence").length, 1);
  assert.deepEqual(heard, []);
});

test("the diff that shows this page again may come before the state", async () => {
  const { channel, heard } = await seenAndBack();
  diff({ me: [["r3", ME]] });
  state({ ada: ["r1"] });
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r3"] });
  assert.deepEqual(heard, []);
});

test("another page under the same key that comes meanwhile is a join of its own", async () => {
  const { channel, heard } = await seenAndBack();
  state({ ada: ["r1"] });
  diff({ me: [["r7", { name: "Phone" }]] });
  assert.deepEqual(heard, ["join me: r7 beside r2"]);
  diff({ me: [["r3", ME]] });
  assert.equal(heard.length, 1);
  assert.deepEqual(there(channel), { ada: ["r1"], me: ["r7", "r3"] });
});

test("a page that may not be tracked again has left, and that is reported", async () => {
  const reported = mock.method(console, "error", () => {});
  const { channel, heard } = await seenAndBack();
  state({ ada: ["r1"] });
  Socket.last.answer("presence", "error", { reason: "no right" });
  await settle();
  assert.deepEqual(heard, ["leave me: r2 beside none"]);
  assert.deepEqual(there(channel), { ada: ["r1"] });
  assert.equal(reported.mock.calls[0].arguments[0].message, "not tracked again: no right");
  reported.mock.restore();
  reconnect();
  assert.equal(Socket.last.of("presence").length, 1);
});

test("a page that shows something else after a reconnect has left as what it was", async () => {
  const { channel, heard } = await seenAndBack();
  state({ ada: ["r1"] });
  channel.track({ name: "Else" });
  diff({ me: [["r3", { name: "Else" }]] });
  assert.deepEqual(heard, ["leave me: r2 beside none", "join me: r3 beside none"]);
  channel.untrack();
  reconnect();
  state({ ada: ["r1"] });
  assert.deepEqual(there(channel), { ada: ["r1"] });
});

test("two pages with the same key and meta are two, also after both were lost", async () => {
  const { channel, heard } = joined();
  state({ me: [["r1", ME]] });
  channel.track(ME);
  Socket.last.answer("presence");
  diff({ me: [["r2", ME]] });
  await settle();
  heard.length = 0;
  reconnect();
  state({ me: [["r5", ME]] });
  diff({ me: [["r6", ME]] });
  assert.deepEqual(there(channel), { me: ["r5", "r6"] });
  assert.deepEqual(heard, []);
});

test("keys that objects have of their own are keys like others", () => {
  const { channel, heard } = joined();
  const keys = ["__proto__", "constructor", "hasOwnProperty", "toString", "ids", "length", "joins", ""];
  const metas = keys.map((key, at) => `${JSON.stringify(key)}:{"metas":[{"phx_ref":"r${at}","__proto__":{"evil":1}}]}`);
  const text = (event, payload) =>
    Socket.last.onmessage({ data: `[null,null,"${TOPIC}","${event}",${payload}]` });
  text("presence_state", `{${metas.join()}}`);
  const all = channel.presenceState();
  assert.equal(Object.getPrototypeOf(all), null);
  assert.deepEqual(Object.keys(all), keys);
  assert.equal(all.__proto__[0].presence_ref, "r0");
  assert.equal({}.evil, undefined);
  assert.equal(all.constructor[0].evil, undefined);
  assert.equal(heard.length, keys.length);
  text("presence_diff", `{"joins":{},"leaves":{${metas.join()}}}`);
  assert.deepEqual(Object.keys(channel.presenceState()), []);
  assert.equal(heard.length, 2 * keys.length);
});

test("what has not the shape of presence is passed over, and what has is read", () => {
  const { channel, heard } = joined();
  const odd = {
    a: null, b: 7, c: "metas", d: [], e: {}, f: { metas: null }, g: { metas: {} }, h: { metas: "x" },
    i: { metas: [null, 7, "r", [], {}, { phx_ref: null }, { phx_ref: 7 }, { phx_ref: ["r"] }] },
    j: { metas: [{ phx_ref: "r1" }, { phx_ref: "r1" }, null] },
  };
  Socket.last.receive(null, null, TOPIC, "presence_state", odd);
  assert.deepEqual(there(channel), { j: ["r1"] });
  for (const payload of [{}, { joins: null }, { joins: 7, leaves: "x" }, { joins: odd, leaves: [odd] }]) {
    Socket.last.receive(null, null, TOPIC, "presence_diff", payload);
  }
  assert.deepEqual(there(channel), { j: ["r1"] });
  assert.deepEqual(heard, ["join j: r1 beside none"]);
});

test("a page cannot change who is there by changing what it was handed", () => {
  const { channel } = joined();
  state({ ada: [["r1", { name: "Ada" }]] });
  const handed = channel.presenceState();
  assert.throws(() => (handed.ada[0].name = "Eve"), TypeError);
  handed.ada.length = 0;
  delete handed.ada;
  assert.equal(channel.presenceState().ada[0].name, "Ada");
});

test("a meta that claims a ref of its own has the server's", () => {
  const { channel } = joined();
  state({ ada: [["r1", { presence_ref: "forged" }]] });
  assert.deepEqual(there(channel), { ada: ["r1"] });
});

test("a channel that did not ask for presence does not gather it", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const channel = client.channel("room").subscribe();
  Socket.last.grant();
  for (let count = 0; count < 600; count += 1) diff({ ada: [`r${count}`] });
  assert.equal(channel.status, "live");
  assert.deepEqual(there(channel), {});
});

test("however states and diffs come, the page knows who is there and heard each change once", () => {
  let seed = 5;
  const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  const { channel, heard } = joined();
  const truth = new Map(); // ref → key
  let next = 0;
  const all = () => {
    const metas = {};
    for (const [ref, key] of truth) (metas[key] ??= []).push([ref, { n: ref }]);
    return metas;
  };
  const step = () => {
    const [joins, leaves] = [{}, {}];
    for (const [ref, key] of [...truth]) {
      if (random(4)) continue;
      truth.delete(ref);
      (leaves[key] ??= []).push(ref);
    }
    for (let count = random(3); count > 0; count -= 1) {
      const [ref, key] = [`r${(next += 1)}`, `k${random(3)}`];
      truth.set(ref, key);
      (joins[key] ??= []).push([ref, { n: ref }]);
    }
    return [joins, leaves];
  };
  state({});
  for (let round = 0; round < 300; round += 1) {
    if (random(5) === 0) {
      reconnect();
      step(); // nobody heard of it
      const before = all();
      for (let count = random(3); count > 0; count -= 1) diff(...step());
      state(random(2) ? before : all()); // read before or after those diffs
    } else {
      diff(...step());
    }
    const known = Object.entries(there(channel)).flatMap(([key, refs]) => refs.map((ref) => [ref, key]));
    assert.deepEqual(new Map(known.sort()), new Map([...truth].sort()));
  }
  const balance = new Map();
  for (const line of heard) {
    const [, event, key, refs] = /^(\w+) (\w+): (\S+)/.exec(line);
    for (const ref of refs.split("+")) {
      const count = (balance.get(ref) ?? 0) + (event === "join" ? 1 : -1);
      assert.ok(count === 0 || count === 1, `${line} of ${key}`);
      balance.set(ref, count);
    }
  }
  assert.equal([...balance.values()].filter(Boolean).length, truth.size);
});

test("beside other pages of the same key, over losses that the server notices late, all adds up", async () => {
  let seed = 3;
  const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  const { channel, heard } = joined();
  let next = 0;
  const rows = new Map(); // ref → whether it is a page that is gone and not noticed
  const written = (refs) => (refs.length ? { me: refs.map((ref) => [ref, ME]) } : {});
  const come = () => {
    const ref = `r${(next += 1)}`;
    rows.set(ref, false);
    diff(written([ref]));
    return ref;
  };
  const go = (ref) => {
    rows.delete(ref);
    diff({}, written([ref]));
  };
  state({});
  channel.track(ME);
  Socket.last.answer("presence");
  let mine = come();
  for (let round = 0; round < 300; round += 1) {
    const others = [...rows.keys()].filter((ref) => ref !== mine);
    const act = random(5);
    if (act < 2) come();
    else if (act < 4 && others.length) go(others[random(others.length)]);
    else {
      reconnect();
      if (random(2)) rows.set(mine, true);
      else rows.delete(mine);
      for (const ref of [...rows.keys()]) if (random(3) === 0) rows.delete(ref);
      state(written([...rows.keys()]));
      Socket.last.answer("presence");
      await settle();
      mine = come();
    }
    assert.deepEqual((there(channel).me ?? []).sort(), [...rows.keys()].sort());
  }
  for (const [ref, isGone] of rows) if (isGone) go(ref);
  const count = (event) =>
    heard.filter((line) => line.startsWith(event)).flatMap((line) => line.split(" ")[2].split("+")).length;
  assert.equal(count("join") - count("leave"), rows.size);
});
