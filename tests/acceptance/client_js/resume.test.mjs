/** What the client does about changes that it missed, or gets twice. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { fakeWebSocket, loadClient, settle, URL_ } from "./server.mjs";

const { connect } = await loadClient();

const TASKS = { event: "*", schema: "public", table: "task" };
const NOTES = { event: "*", schema: "public", table: "note" };
const CAUGHT_UP = ["resume", "caught up"];
const RESYNC = ["resume", "resync required"];

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

/** The data of a change of row `id`. */
function change(seq, id = seq, more = {}) {
  const row = { id };
  return { schema: "public", table: "task", type: "INSERT", seq, record: row, ...more };
}

/** A page with one channel: what it was told and what it got, `seq` by `seq`. */
function page(configs = [TASKS], { channel: options = {}, ...subscribe } = {}) {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const statuses = [];
  const got = [];
  const channel = client.channel("room", options);
  configs.forEach((config, binding) =>
    channel.on("postgres_changes", config, (one) => got.push([binding, one.seq, one.new.id ?? one.old.id])),
  );
  channel.subscribe((status) => statuses.push(status), subscribe);
  return { channel, statuses, got, seqs: () => got.map(([, seq]) => seq) };
}

/** A page that is live at e1:10. */
function live(...asked) {
  const made = page(...asked);
  Socket.last.grant();
  return made;
}

/** Loses the connection and opens the next one; the join is not answered yet. */
function reconnect() {
  Socket.last.drop();
  mock.timers.tick(1000);
  return Socket.last.accept();
}

const since = (socket = Socket.last) => socket.asked().map((binding) => binding.since);

function beat(head) {
  mock.timers.tick(25000);
  Socket.last.pulse(head);
}

test("before it has a cursor a channel asks for what comes from now on", () => {
  const { channel } = page();
  assert.deepEqual(since(), [undefined]);
  assert.equal(channel.cursor, null);
});

test("the cursor begins at the head of the join and moves with each change", () => {
  const { channel } = live();
  assert.equal(channel.cursor, "e1:10");
  Socket.last.change([1], change(14));
  assert.equal(channel.cursor, "e1:14");
});

test("a callback finds its own change in the cursor, to be kept with the row", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const kept = [];
  const channel = client.channel("room");
  channel.on("postgres_changes", TASKS, ({ seq }) => kept.push([seq, channel.cursor])).subscribe();
  Socket.last.grant();
  Socket.last.change([1], change(12));
  assert.deepEqual(kept, [[12, "e1:12"]]);
});

test("a channel that lost its connection goes on after the last change it has", () => {
  const { seqs, statuses } = live();
  Socket.last.change([1], change(11));
  reconnect();
  assert.deepEqual(since(), ["e1:11"]);
  Socket.last.grant({ head: { epoch: "e1", seq: 13 } });
  Socket.last.change([1], change(12));
  Socket.last.change([1], change(13));
  Socket.last.tell(...CAUGHT_UP, { seq: 13 });
  Socket.last.change([1], change(14));
  assert.deepEqual(seqs(), [11, 12, 13, 14]);
  assert.deepEqual(statuses, ["joining", "live", "errored", "joining", "catching up", "live"]);
});

test("the rest of what the page asked for is asked for again as it was", () => {
  const config = { ...TASKS, filter: "id=gt.3", select: ["id"] };
  live([config]);
  reconnect();
  assert.deepEqual(Socket.last.asked(), [{ ...config, since: "e1:10" }]);
});

test("a channel that the server ended goes on where it was, on the same connection", () => {
  const { channel } = live();
  Socket.last.change([1], change(11));
  const [joinRef] = Socket.last.join();
  Socket.last.receive(joinRef, joinRef, "realtime:room", "phx_error", {});
  assert.equal(channel.status, "errored");
  mock.timers.tick(1000);
  assert.deepEqual(since(), ["e1:11"]);
});

test("a replay that is cut off goes on from where it came to", () => {
  const { seqs } = live();
  reconnect().grant({ head: { epoch: "e1", seq: 500 } });
  Socket.last.change([1], change(20));
  Socket.last.change([1], change(30));
  reconnect();
  assert.deepEqual(since(), ["e1:30"]);
  Socket.last.grant({ head: { epoch: "e1", seq: 500 } });
  Socket.last.change([1], change(40));
  assert.deepEqual(seqs(), [20, 30, 40]);
});

test("the head in the reply to a join with a cursor does not move the cursor", () => {
  const { channel } = live();
  reconnect().grant({ head: { epoch: "e1", seq: 500 } });
  assert.equal(channel.cursor, "e1:10");
});

test("the end of a replay moves the cursor to where it ended", () => {
  const { channel } = live();
  reconnect().grant({ head: { epoch: "e1", seq: 500 } });
  Socket.last.tell(...CAUGHT_UP, { seq: 510 });
  assert.equal(channel.cursor, "e1:510");
});

test("a change that comes twice reaches the page once", () => {
  const { seqs } = live();
  for (const seq of [11, 12, 12, 13]) Socket.last.change([1], change(seq));
  reconnect().grant();
  for (const seq of [13, 14]) Socket.last.change([1], change(seq));
  assert.deepEqual(seqs(), [11, 12, 13, 14]);
});

test("a change that is older than what the page has does not reach it", () => {
  const { seqs, channel } = live();
  for (const seq of [10, 15, 11, 16]) Socket.last.change([1], change(seq));
  assert.deepEqual(seqs(), [15, 16]);
  assert.equal(channel.cursor, "e1:16");
});

test("one change for several bindings in one frame reaches each of them, once", () => {
  const { got } = live([TASKS, { ...TASKS, filter: "id=gt.3" }]);
  Socket.last.change([1, 2], change(11));
  Socket.last.change([1, 2], change(11));
  assert.deepEqual(got, [[0, 11, 11], [1, 11, 11]]);
});

test("bindings with columns of their own get a change in a frame each; a cut between is made up", () => {
  const configs = [{ ...TASKS, select: ["id"] }, { ...TASKS, select: ["id", "title"] }];
  const { got, channel } = live(configs);
  Socket.last.change([1], change(11));
  // Another frame of the same change may be on its way.
  assert.equal(channel.cursor, "e1:10");
  reconnect().grant();
  Socket.last.change([1], change(11));
  Socket.last.change([2], change(11));
  Socket.last.change([1], change(12));
  assert.deepEqual(got, [[0, 11, 11], [1, 11, 11], [0, 12, 12]]);
  assert.equal(channel.cursor, "e1:11");
});

test("a live binding gets every row that one change of permissions brings, each once", () => {
  const { got, channel } = live([{ ...TASKS, live: true }]);
  for (const id of [1, 2]) Socket.last.change([1], change(11, id));
  reconnect();
  assert.deepEqual(since(), ["e1:10"]);
  Socket.last.grant();
  for (const id of [1, 2, 3]) Socket.last.change([1], change(11, id));
  assert.deepEqual(got, [[0, 11, 1], [0, 11, 2], [0, 11, 3]]);
  Socket.last.tell(...CAUGHT_UP, { seq: 11 });
  assert.equal(channel.cursor, "e1:11");
});

test("a live binding sees the same row come again in a later change", () => {
  const { seqs } = live([{ ...TASKS, live: true }]);
  Socket.last.change([1], change(11, 7));
  Socket.last.change([1], change(12, 7, { type: "DELETE", record: undefined, old_record: { id: 7 } }));
  Socket.last.change([1], change(13, 7));
  assert.deepEqual(seqs(), [11, 12, 13]);
});

test("a live binding is told all the server says of one change, also a row that leaves and returns", () => {
  const { got } = live([{ ...TASKS, live: true }]);
  const gone = { type: "DELETE", record: undefined, old_record: { id: 7 } };
  for (const more of [{}, gone, {}, gone]) Socket.last.change([1], change(11, 7, more));
  assert.equal(got.length, 4);
  reconnect().grant();
  for (const more of [{}, gone]) Socket.last.change([1], change(11, 7, more));
  assert.equal(got.length, 4);
});

test("a heartbeat keeps the cursor of a quiet channel fresh", () => {
  const { channel } = live();
  beat({ epoch: "e1", seq: 90 });
  assert.equal(channel.cursor, "e1:90");
  reconnect();
  assert.deepEqual(since(), ["e1:90"]);
});

test("a heartbeat does not move a cursor back", () => {
  const { channel } = live();
  Socket.last.change([1], change(95));
  beat({ epoch: "e1", seq: 90 });
  assert.equal(channel.cursor, "e1:95");
});

test("a heartbeat during a replay moves only the cursors of other channels", () => {
  const { channel } = live();
  const other = client.channel("other").on("postgres_changes", NOTES, () => {}).subscribe();
  Socket.last.grant({ topic: "realtime:other" });
  reconnect();
  Socket.last.grant();
  Socket.last.grant({ topic: "realtime:other" });
  Socket.last.tell(...CAUGHT_UP, { seq: 10 }, "realtime:other");
  beat({ epoch: "e1", seq: 90 });
  assert.equal(channel.cursor, "e1:10");
  assert.equal(other.cursor, "e1:90");
});

test("a heartbeat that names no head, as while the server replays, moves nothing", () => {
  const { channel } = live();
  beat({});
  assert.equal(channel.cursor, "e1:10");
});

test("a heartbeat that is answered before the join moves nothing", () => {
  const { channel } = live();
  reconnect();
  beat({ epoch: "e1", seq: 90 });
  assert.notEqual(channel.status, "live");
  assert.equal(channel.cursor, "e1:10");
});

test("a heartbeat from another log proves nothing", () => {
  const { channel } = live();
  beat({ epoch: "e2", seq: 90 });
  assert.equal(channel.cursor, "e1:10");
});

test("what the server cannot give is told, and the page reads its rows again", () => {
  let reads = 0;
  const { channel, statuses, seqs } = live([TASKS], { onResync: () => (reads += 1) });
  reconnect().grant({ head: { epoch: "e1", seq: 900 } });
  Socket.last.tell(...RESYNC, { seq: 901 });
  assert.equal(reads, 1);
  assert.equal(channel.cursor, "e1:901");
  assert.deepEqual(statuses.slice(-3), ["catching up", "resynced", "live"]);
  Socket.last.change([1], change(901));
  Socket.last.change([1], change(902));
  assert.deepEqual(seqs(), [902]);
});

test("a channel is not called live until its rows are read again", async () => {
  let done;
  const { channel, statuses } = live([TASKS], { onResync: () => new Promise((resolve) => (done = resolve)) });
  reconnect().grant();
  Socket.last.tell(...RESYNC, { seq: 20 });
  Socket.last.change([1], change(21));
  assert.equal(channel.status, "resynced");
  // Rows that are not read yet must not be kept with this place.
  assert.equal(channel.cursor, null);
  done();
  await settle();
  assert.equal(statuses.at(-1), "live");
  assert.equal(channel.cursor, "e1:21");
});

test("a second gap while rows are read again is read for as well", async () => {
  const waiting = [];
  const { channel } = live([TASKS], { onResync: () => new Promise((resolve) => waiting.push(resolve)) });
  for (const seq of [20, 30]) Socket.last.tell(...RESYNC, { seq });
  waiting[0]();
  await settle();
  assert.equal(channel.status, "resynced");
  waiting[1]();
  await settle();
  assert.equal(channel.status, "live");
});

test("a connection that is lost while rows are read again does not make the channel live", async () => {
  let done;
  const { channel } = live([TASKS], { onResync: () => new Promise((resolve) => (done = resolve)) });
  Socket.last.tell(...RESYNC, { seq: 20 });
  reconnect();
  assert.deepEqual(since(), ["e1:20"]);
  Socket.last.grant();
  Socket.last.tell(...CAUGHT_UP, { seq: 20 });
  assert.equal(channel.status, "resynced");
  done();
  await settle();
  assert.equal(channel.status, "live");
});

test("a page that fails to read its rows is reported and goes on", async () => {
  const reported = mock.method(console, "error", () => {});
  const { channel } = live([TASKS], { onResync: async () => { throw new Error("page bug"); } });
  Socket.last.tell(...RESYNC, { seq: 20 });
  await settle();
  assert.equal(reported.mock.calls[0].arguments[0].message, "page bug");
  assert.equal(channel.status, "live");
  reported.mock.restore();
});

test("a gap in the middle of a live channel is told too", () => {
  const { statuses } = live();
  Socket.last.tell(...RESYNC, { seq: 20 });
  assert.deepEqual(statuses, ["joining", "live", "resynced", "live"]);
});

test("another log than before: its numbers count anew", () => {
  const { seqs, channel } = live();
  Socket.last.change([1], change(50));
  reconnect().grant({ head: { epoch: "e2", seq: 3 } });
  Socket.last.tell(...RESYNC, { seq: 3 });
  Socket.last.change([1], change(4));
  assert.deepEqual(seqs(), [50, 4]);
  assert.equal(channel.cursor, "e2:4");
});

test("another log during a connection: the next heartbeat names it", () => {
  const { seqs, channel } = live();
  Socket.last.tell(...RESYNC, { seq: 3 });
  Socket.last.change([1], change(4));
  assert.deepEqual(seqs(), [4]);
  beat({ epoch: "e2", seq: 5 });
  assert.equal(channel.cursor, "e2:5");
  beat({ epoch: "e3", seq: 6 });
  assert.equal(channel.cursor, "e2:5");
});

test("a page goes on from a cursor that it kept", () => {
  const { statuses, seqs, channel } = page([TASKS], { since: "e1:7" });
  assert.deepEqual(since(), ["e1:7"]);
  assert.equal(channel.cursor, "e1:7");
  Socket.last.grant();
  for (const seq of [7, 8]) Socket.last.change([1], change(seq));
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  assert.deepEqual(seqs(), [8]);
  assert.deepEqual(statuses, ["joining", "catching up", "live"]);
});

test("a cursor that was kept from another log ends in a resync", () => {
  let reads = 0;
  const { channel } = page([TASKS], { since: "e0:700", onResync: () => (reads += 1) });
  Socket.last.grant();
  Socket.last.tell(...RESYNC, { seq: 10 });
  Socket.last.change([1], change(11));
  assert.equal(reads, 1);
  assert.equal(channel.cursor, "e1:11");
});

test("a page may begin at a time; after the first change the channel knows its place", () => {
  const time = "2025-11-03T09:32:55.123456Z";
  const { channel } = page([TASKS], { since: time });
  Socket.last.grant();
  assert.equal(channel.cursor, null);
  reconnect();
  assert.deepEqual(since(), [time]);
  Socket.last.grant();
  Socket.last.change([1], change(5));
  reconnect();
  assert.deepEqual(since(), ["e1:5"]);
});

test("a binding with a beginning of its own is asked for there until the channel is past it", () => {
  page([{ ...TASKS, since: 3 }, { ...NOTES, since: 8 }]);
  assert.deepEqual(since(), [3, 8]);
  Socket.last.grant();
  Socket.last.change([1], change(5));
  reconnect();
  assert.deepEqual(since(), ["e1:5", 8]);
  Socket.last.grant();
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  reconnect();
  assert.deepEqual(since(), ["e1:10", "e1:10"]);
});

test("a binding that begins now is not thrown back by one that begins earlier", () => {
  const { got } = page([{ ...TASKS, since: 3 }, NOTES]);
  assert.deepEqual(since(), [3, undefined]);
  Socket.last.grant();
  Socket.last.change([1], change(5));
  reconnect();
  assert.deepEqual(since(), ["e1:5", "e1:10"]);
  Socket.last.grant({ head: { epoch: "e1", seq: 20 } });
  Socket.last.change([1], change(8));
  Socket.last.change([2], change(12));
  reconnect();
  assert.deepEqual(since(), ["e1:12", "e1:12"]);
  assert.deepEqual(got, [[0, 5, 5], [0, 8, 8], [1, 12, 12]]);
});

test("a kept cursor is no place for a binding that begins before it", () => {
  page([{ ...TASKS, since: 3 }, NOTES], { since: "e1:7" });
  assert.deepEqual(since(), [3, "e1:7"]);
  Socket.last.grant();
  Socket.last.change([1], change(4));
  reconnect();
  assert.deepEqual(since(), ["e1:4", "e1:7"]);
});

test("a channel with a snapshot is live once that is there, and then goes on by its cursor", () => {
  const config = { ...TASKS, snapshot: true };
  const { channel, statuses, got } = page([config]);
  Socket.last.grant();
  assert.equal(channel.status, "catching up");
  Socket.last.tell("snapshot", "snapshot begins", { seq: 9 });
  assert.equal(channel.status, "catching up");
  for (const id of [1, 2]) Socket.last.change([1], change(9, id, { snapshot: true }));
  assert.equal(channel.cursor, null);
  Socket.last.tell("snapshot", "complete", { seq: 9 });
  assert.equal(channel.cursor, "e1:9");
  assert.equal(got.length, 2);
  assert.deepEqual(statuses, ["joining", "catching up", "live"]);
  reconnect();
  assert.deepEqual(Socket.last.asked(), [{ ...config, since: "e1:9" }]);
  Socket.last.grant();
  Socket.last.change([1], change(10));
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  assert.equal(got.length, 3);
  assert.equal(channel.status, "live");
});

test("a snapshot in place of a replay: the page first forgets what it has", () => {
  const order = [];
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const channel = client.channel("room");
  channel.on("postgres_changes", { ...TASKS, snapshot: true }, ({ new: row }) => order.push(row.id));
  channel.subscribe((status) => order.push(status), { onResync: () => order.push("forget") });
  Socket.last.grant();
  Socket.last.tell("snapshot", "complete", { seq: 10 });
  reconnect().grant({ head: { epoch: "e2", seq: 3 } });
  order.length = 0;
  for (const id of [1, 2]) Socket.last.change([1], change(3, id, { snapshot: true }));
  assert.equal(channel.cursor, null);
  Socket.last.tell("snapshot", "complete", { seq: 3 });
  Socket.last.tell(...CAUGHT_UP, { seq: 4 });
  assert.deepEqual(order, ["resynced", "forget", "catching up", 1, 2, "live"]);
  assert.equal(channel.cursor, "e2:4");
});

test("a new snapshot of nothing makes the page forget, too", () => {
  let forgotten = 0;
  const { channel } = page([{ ...TASKS, snapshot: true }], { onResync: () => (forgotten += 1) });
  Socket.last.grant();
  Socket.last.tell("snapshot", "complete", { seq: 10 });
  assert.equal(forgotten, 0);
  Socket.last.tell("snapshot", "complete", { seq: 20 });
  assert.equal(forgotten, 1);
  assert.equal(channel.cursor, "e1:20");
  assert.equal(channel.status, "live");
});

test("a snapshot that was cut off is asked for again, and the page is told to forget the first", () => {
  let forgotten = 0;
  const config = { ...TASKS, snapshot: { limit: 5 } };
  const { statuses } = page([config], { onResync: () => (forgotten += 1) });
  Socket.last.grant();
  Socket.last.change([1], change(9, 1, { snapshot: true }));
  reconnect();
  assert.deepEqual(Socket.last.asked(), [config]);
  Socket.last.grant();
  assert.equal(forgotten, 1);
  assert.deepEqual(statuses.slice(-2), ["resynced", "catching up"]);
});

test("without resume a rejoin begins with what comes then, and nothing is said of a gap", () => {
  const { statuses } = live([TASKS], { channel: { resume: false } });
  Socket.last.change([1], change(11));
  reconnect();
  assert.deepEqual(Socket.last.asked(), [TASKS]);
  Socket.last.grant();
  assert.deepEqual(statuses.slice(-2), ["joining", "live"]);
});

test("a server that keeps no log: a rejoin is a gap, and the page reads its rows again", () => {
  let reads = 0;
  const { seqs, channel, statuses } = page([TASKS], { onResync: () => (reads += 1) });
  Socket.last.grant({ head: {} });
  for (const id of [1, 1]) Socket.last.change([1], change(undefined, id));
  assert.equal(seqs().length, 2);
  assert.equal(channel.cursor, null);
  reconnect();
  assert.deepEqual(since(), [undefined]);
  Socket.last.grant({ head: {} });
  assert.equal(reads, 1);
  assert.deepEqual(statuses.slice(-3), ["joining", "resynced", "live"]);
});

test("a channel without bindings of changes is simply live again", () => {
  const { statuses } = live([]);
  reconnect().grant();
  assert.deepEqual(statuses, ["joining", "live", "errored", "joining", "live"]);
});

test("the messages of a resume reach a page that listens to them", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  Socket.last.accept();
  const heard = [];
  client
    .channel("room")
    .on("postgres_changes", { ...TASKS, since: 3 }, () => {})
    .on("system", {}, ({ message }) => heard.push(message))
    .subscribe();
  Socket.last.grant();
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  assert.deepEqual(heard, ["Subscribed to PostgreSQL", "caught up"]);
});

test("whatever comes twice, late or after a cut, the page has each change once and in order", () => {
  // A server of 60 changes whose connection breaks at random places, also within a heartbeat's time.
  let state = 7;
  const random = (below) => (state = (state * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 20; round += 1) {
    Socket = fakeWebSocket();
    const { seqs, statuses } = page();
    Socket.last.grant({ head: { epoch: "e1", seq: 0 } });
    let next = 1;
    while (next <= 60) {
      for (let count = random(9); count > 0 && next <= 60; count -= 1) {
        Socket.last.change([1], change(next));
        if (random(4) === 0) Socket.last.change([1], change(Math.max(1, next - random(3))));
        next += 1;
      }
      if (random(3) === 0) beat({ epoch: "e1", seq: next - 1 });
      if (random(2) === 0) continue;
      reconnect();
      next = Number(since()[0].split(":")[1]) + 1;
      Socket.last.grant({ head: { epoch: "e1", seq: 60 } });
      if (random(2) === 0) Socket.last.tell(...CAUGHT_UP, { seq: next - 1 });
    }
    assert.deepEqual(seqs(), Array.from({ length: 60 }, (_, index) => index + 1));
    assert.ok(!statuses.includes("resynced"));
    client.close();
  }
});

test("changes that are lost to a page that cannot read its rows again are a line of the console", () => {
  const lines = mock.method(console, "error", () => {});
  const said = () => lines.mock.calls.filter(({ arguments: [line] }) => line.includes("no onResync")).length;
  live();
  Socket.last.tell(...RESYNC, { seq: 20 });
  Socket.last.tell(...RESYNC, { seq: 30 });
  assert.equal(said(), 1);
  client.close();
  live([TASKS], { onResync: () => {} });
  Socket.last.tell(...RESYNC, { seq: 20 });
  client.close();
  live([TASKS], { channel: { resume: false } });
  Socket.last.tell(...RESYNC, { seq: 20 });
  assert.equal(said(), 1);
  lines.mock.restore();
});

/**
 * A page that is live at e1:10 with the rows of Ada, and whose connection comes back: `before` it is
 * lost and while it is `away` things happen.
 */
function back({ before = () => {}, away = () => {}, code = 1006, ...asked } = {}) {
  let calls = 0;
  const made = page([TASKS], { onResync: () => { calls += 1; }, ...asked });
  Socket.last.grant({ subject: "ada" });
  before();
  Socket.last.drop(code, "");
  away();
  mock.timers.tick(1000);
  Socket.last.accept();
  return { ...made, resyncs: () => calls };
}

test("a rejoin as somebody else does not go on where the former was: the page reads its rows again", () => {
  const { channel, statuses, seqs, resyncs } = back({ code: 4401 });
  const [former] = Socket.last.join();
  assert.deepEqual(since(), ["e1:10"]);
  Socket.last.grant({ subject: "anon", head: { epoch: "e1", seq: 20 }, confirm: false });
  assert.equal(Socket.last.of("phx_leave").at(-1)[0], former);
  assert.deepEqual(since(), [undefined]);
  Socket.last.change([1], change(15));
  assert.equal(channel.status, "joining");
  assert.equal(channel.cursor, null);
  Socket.last.grant({ subject: "anon", firstId: 2, head: { epoch: "e1", seq: 20 } });
  Socket.last.change([2], change(21));
  assert.deepEqual(statuses, ["joining", "live", "errored", "joining", "resynced", "live"]);
  assert.equal(resyncs(), 1);
  assert.deepEqual(seqs(), [21]);
  // From here on it goes on where it was, as whom it is now.
  reconnect();
  assert.deepEqual(since(), ["e1:21"]);
  Socket.last.grant({ subject: "anon", head: { epoch: "e1", seq: 22 } });
  assert.equal(channel.status, "catching up");
});

test("a binding with a place of its own begins anew there as somebody else, and the page reads again", () => {
  let calls = 0;
  const { channel } = page([{ ...TASKS, since: 3 }], { onResync: () => { calls += 1; } });
  Socket.last.grant({ subject: "ada" });
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  reconnect().grant({ subject: "bob", head: { epoch: "e1", seq: 20 }, confirm: false });
  assert.deepEqual(since(), [3]);
  Socket.last.grant({ subject: "bob", head: { epoch: "e1", seq: 20 } });
  Socket.last.tell(...CAUGHT_UP, { seq: 20 });
  assert.equal(calls, 1);
  assert.equal(channel.status, "live");
});

test("a token that was renewed while the connection was lost goes on where the channel was", () => {
  const { channel, resyncs } = back({ away: () => client.setToken("renewed") });
  Socket.last.grant({ subject: "ada", head: { epoch: "e1", seq: 12 } });
  Socket.last.tell(...CAUGHT_UP, { seq: 12 });
  assert.equal(channel.status, "live");
  assert.equal(Socket.last.of("phx_join").length, 1);
  assert.equal(resyncs(), 0);
});

test("a token that was sent is somebody else's until the server has said whose it is", () => {
  const { resyncs } = back({ before: () => client.setToken("another") });
  Socket.last.grant({ subject: "ada", head: { epoch: "e1", seq: 12 }, confirm: false });
  assert.deepEqual(since(), [undefined]);
  Socket.last.grant({ subject: "ada", head: { epoch: "e1", seq: 12 } });
  assert.equal(resyncs(), 1);
});

const taken = (subject) => {
  client.setToken(subject);
  Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL", { subject });
};

test("a token in band of the same user goes on where the channel was", () => {
  const { statuses } = back({ before: () => taken("ada") });
  assert.deepEqual(since(), ["e1:10"]);
  Socket.last.grant({ subject: "ada", head: { epoch: "e1", seq: 12 }, confirm: false });
  assert.equal(Socket.last.of("phx_join").length, 1);
  assert.deepEqual(statuses.slice(0, 3), ["joining", "live", "errored"]);
});

test("a token in band of another user: the page is not live until it has read its rows again", () => {
  let calls = 0;
  const { channel, statuses, seqs } = page([TASKS], { onResync: () => { calls += 1; } });
  Socket.last.grant({ subject: "ada" });
  const [former] = Socket.last.join();
  taken("bob");
  assert.equal(Socket.last.of("phx_leave").at(-1)[0], former);
  assert.equal(Socket.last.of("phx_join").at(-1)[4].access_token, "bob");
  assert.deepEqual(since(), [undefined]);
  assert.equal(channel.cursor, null);
  Socket.last.grant({ subject: "bob", firstId: 2, head: { epoch: "e1", seq: 20 } });
  Socket.last.change([2], change(21));
  assert.deepEqual(statuses, ["joining", "live", "joining", "resynced", "live"]);
  assert.equal(calls, 1);
  assert.deepEqual(seqs(), [21]);
});

test("a token in band of another user, and live sets alone: the server takes back what they may not see", () => {
  const { statuses } = page([{ ...TASKS, live: true }]);
  Socket.last.grant({ subject: "ada" });
  taken("bob");
  assert.equal(Socket.last.of("phx_join").length, 1);
  assert.deepEqual(statuses, ["joining", "live"]);
});

test("two tokens in band, there and back: what the one between could see is read again", () => {
  const { resyncs } = back({
    before: () => {
      taken("bob");
      Socket.last.grant({ subject: "bob", firstId: 2 });
      taken("ada");
    },
  });
  assert.deepEqual(since(), [undefined]);
  Socket.last.grant({ subject: "ada", head: { epoch: "e1", seq: 12 } });
  assert.equal(resyncs(), 2);
});

test("a cursor that the page kept begins the first join of any user", () => {
  const { channel } = page([TASKS], { since: "e1:5" });
  Socket.last.grant({ subject: "ada" });
  Socket.last.tell(...CAUGHT_UP, { seq: 10 });
  assert.equal(channel.status, "live");
  assert.equal(Socket.last.of("phx_join").length, 1);
});
