import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { fakeWebSocket, loadClient, settle, URL_ } from "./server.mjs";

const { connect, decodeFrame } = await loadClient();

const TASKS = { event: "*", schema: "public", table: "demo_task" };
const ROW = {
  schema: "public",
  table: "demo_task",
  type: "UPDATE",
  commit_timestamp: "2025-11-03T09:32:55.123456Z",
  columns: [{ name: "id", type: "int8" }],
  record: { id: 7, title: "new" },
  old_record: { id: 7, title: "old" },
  errors: null,
  seq: 42,
};

let Socket;
let client;

/** A client without jitter, on a connection that is open. */
function opened(options = {}) {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5, ...options });
  Socket.last?.accept();
  return client;
}

function joined(bindings = [[TASKS, () => {}]], options = {}) {
  const statuses = [];
  const channel = opened(options).channel("room");
  for (const [config, callback] of bindings) channel.on("postgres_changes", config, callback);
  channel.subscribe((status, error) => statuses.push(error ? `${status}: ${error.message}` : status));
  Socket.last.grant();
  return { channel, statuses, socket: Socket.last };
}

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout"] });
  Socket = fakeWebSocket();
});

afterEach(() => {
  client?.close();
  client = null;
  mock.timers.reset();
});

test("the URL asks for serializer 2.0.0 and carries extra parameters", () => {
  opened({ params: { apikey: "sb_publishable_x" } });
  assert.equal(Socket.last.url, `${URL_}?vsn=2.0.0&apikey=sb_publishable_x`);
});

test("an http URL becomes ws and an https one wss", () => {
  client = connect("https://server.test/realtime", { WebSocket: Socket });
  assert.equal(Socket.last.url, "wss://server.test/realtime?vsn=2.0.0");
});

test("a machine without WebSocket is told which option to pass", () => {
  const kept = globalThis.WebSocket;
  delete globalThis.WebSocket;
  try {
    assert.throws(() => connect(URL_), /pass the option WebSocket/);
  } finally {
    if (kept) globalThis.WebSocket = kept;
  }
});

test("the join carries the bindings as they were given and the token", () => {
  const config = { ...TASKS, filter: "id=gt.3", since: 12 };
  opened({ token: "jwt" })
    .channel("room", { private: true })
    .on("postgres_changes", config, () => {})
    .subscribe();
  const [joinRef, ref, topic, , payload] = Socket.last.of("phx_join")[0];
  assert.equal(joinRef, ref);
  assert.equal(topic, "realtime:room");
  assert.deepEqual(payload.config.postgres_changes, [config]);
  assert.equal(payload.config.private, true);
  assert.equal(payload.access_token, "jwt");
});

test("without a token the join has no access_token, so the session counts", () => {
  const { socket } = joined();
  assert.equal("access_token" in socket.of("phx_join")[0][4], false);
});

test("a channel subscribed before the connection opens joins when it does", () => {
  client = connect(URL_, { WebSocket: Socket });
  client.channel("room").subscribe();
  assert.deepEqual(Socket.last.sent, []);
  Socket.last.accept();
  assert.equal(Socket.last.of("phx_join").length, 1);
});

test("a change reaches the page with its place in the log and the ids it matched", () => {
  const got = [];
  const { socket } = joined([[TASKS, (change) => got.push(change)]]);
  socket.change([1], ROW);
  assert.deepEqual(got, [
    {
      eventType: "UPDATE",
      schema: "public",
      table: "demo_task",
      new: { id: 7, title: "new" },
      old: { id: 7, title: "old" },
      commit_timestamp: "2025-11-03T09:32:55.123456Z",
      seq: 42,
      ids: [1],
      columns: [{ name: "id", type: "int8" }],
      errors: null,
      tx: null,
      snapshot: false,
    },
  ]);
});

test("a delete has an empty new row and an insert an empty old one", () => {
  const got = [];
  const { socket } = joined([[TASKS, (change) => got.push([change.new, change.old])]]);
  const { record, old_record, ...bare } = ROW;
  socket.change([1], { ...bare, type: "DELETE", old_record: { id: 7 } });
  socket.change([1], { ...bare, seq: 43, type: "INSERT", record: { id: 8 } });
  assert.deepEqual(got, [
    [{}, { id: 7 }],
    [{ id: 8 }, {}],
  ]);
});

test("only the bindings that the server named and that want the type are called", () => {
  const got = [];
  const { socket } = joined([
    [TASKS, () => got.push("all")],
    [{ ...TASKS, event: "INSERT" }, () => got.push("inserts")],
    [{ ...TASKS, filter: "id=eq.9" }, () => got.push("nine")],
  ]);
  socket.change([1, 2], ROW);
  assert.deepEqual(got, ["all"]);
});

test("a callback that throws does not keep the change from the next one", () => {
  const got = [];
  const reported = mock.method(console, "error", () => {});
  const { socket } = joined([
    [TASKS, () => { throw new Error("page bug"); }],
    [TASKS, (change) => got.push(change.seq)],
  ]);
  socket.change([1, 2], ROW);
  assert.deepEqual(got, [42]);
  assert.equal(reported.mock.calls[0].arguments[0].message, "page bug");
  reported.mock.restore();
});

test("changes cannot be asked for after the join, and subscribing twice is an error", () => {
  const { channel } = joined();
  assert.throws(() => channel.on("postgres_changes", TASKS, () => {}), /before subscribe/);
  assert.throws(() => channel.subscribe(), /only once/);
});

test("a server that grants other changes than were asked for is not believed", () => {
  const statuses = [];
  const channel = opened().channel("room").on("postgres_changes", TASKS, () => {});
  channel.subscribe((status, error) => statuses.push([status, error?.message]));
  const [joinRef, ref] = Socket.last.of("phx_join")[0];
  const response = { postgres_changes: [] };
  Socket.last.receive(joinRef, ref, "realtime:room", "phx_reply", { status: "ok", response });
  assert.equal(statuses.at(-1)[0], "errored");
  assert.equal(Socket.last.of("phx_leave").length, 1);
});

test("a refused join tells why and is tried again", () => {
  const { statuses, socket } = (() => {
    const statuses = [];
    opened().channel("room").subscribe((s, e) => e && statuses.push(`${s}: ${e.message}`));
    return { statuses, socket: Socket.last };
  })();
  socket.refuse("Unauthorized: no");
  assert.deepEqual(statuses, ["errored: Unauthorized: no"]);
  mock.timers.tick(1000);
  assert.equal(socket.of("phx_join").length, 2);
});

test("a join without an answer times out, and is left before it is tried again", () => {
  const statuses = [];
  opened().channel("room").subscribe((status) => statuses.push(status));
  mock.timers.tick(10000);
  assert.deepEqual(statuses, ["joining", "errored"]);
  assert.equal(Socket.last.of("phx_leave").length, 1);
  mock.timers.tick(1000);
  assert.equal(Socket.last.of("phx_join").length, 2);
});

test("a lost connection is opened again and the channel joins again", () => {
  const { statuses, socket } = joined();
  socket.drop();
  mock.timers.tick(1000);
  assert.equal(Socket.made.length, 2);
  Socket.last.accept().grant();
  assert.deepEqual(statuses, [
    "joining", "live", "errored: connection lost", "joining", "catching up",
  ]);
});

test("changes after a rejoin are matched by the new ids", () => {
  const got = [];
  const { socket } = joined([[TASKS, (change) => got.push(change.seq)]]);
  socket.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant({ firstId: 70 });
  Socket.last.change([1], { ...ROW, seq: 43 });
  Socket.last.change([70], { ...ROW, seq: 44 });
  assert.deepEqual(got, [44]);
});

test("reconnecting waits 1, 2, 5, 10 and then always 10 seconds", () => {
  opened();
  const waits = [];
  client.on("status", ({ status, retryInMs }) => status === "closed" && waits.push(retryInMs));
  Socket.last.drop();
  for (const wait of [1000, 2000, 5000, 10000]) {
    mock.timers.tick(wait);
    Socket.last.drop();
  }
  assert.deepEqual(waits, [1000, 2000, 5000, 10000, 10000]);
});

test("jitter spreads the waits by a quarter to either side", () => {
  for (const [random, wait] of [[0, 750], [0.999, 1250]]) {
    opened({ random: () => random });
    Socket.last.drop();
    assert.equal(client.status.retryInMs, wait);
    client.close();
  }
});

test("a connection that is accepted and dropped at once does not reset the back-off", () => {
  opened();
  Socket.last.drop();
  mock.timers.tick(1000);
  Socket.last.accept().drop();
  assert.equal(client.status.retryInMs, 2000);
});

test("a successful join resets the back-off", () => {
  const { socket } = joined();
  socket.drop();
  mock.timers.tick(1000);
  Socket.last.accept().grant();
  Socket.last.drop();
  assert.equal(client.status.retryInMs, 1000);
});

test("status tells connecting, open and closed with the close code", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  const seen = [client.status.status];
  client.on("status", (status) => seen.push(status));
  Socket.last.accept().drop(4430, "slow consumer");
  assert.deepEqual(seen, [
    "connecting",
    { status: "open" },
    { status: "closed", code: 4430, reason: "slow consumer", retryInMs: 1000 },
  ]);
});

test("a handshake without an answer is given up and tried again", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5 });
  mock.timers.tick(10000);
  assert.equal(Socket.made[0].closed, true);
  mock.timers.tick(1000);
  assert.equal(Socket.made.length, 2);
});

test("a heartbeat is sent every 25 seconds while it is answered", () => {
  opened();
  for (const count of [1, 2, 3]) {
    mock.timers.tick(25000);
    const beats = Socket.last.of("heartbeat");
    assert.equal(beats.length, count);
    const reply = { status: "ok", response: {} };
    Socket.last.receive(null, beats.at(-1)[1], "phoenix", "phx_reply", reply);
  }
  assert.equal(Socket.made.length, 1);
});

test("a heartbeat without an answer means the connection is dead", () => {
  const { socket, statuses } = joined();
  mock.timers.tick(25000);
  mock.timers.tick(10000);
  assert.equal(socket.closed, true);
  assert.equal(client.status.reason, "heartbeat timeout");
  assert.equal(statuses.at(-1), "errored: heartbeat timeout");
  mock.timers.tick(1000);
  assert.equal(Socket.made.length, 2);
});

test("the answer to an older heartbeat does not count for the newer one", () => {
  opened();
  mock.timers.tick(25000);
  Socket.last.receive(null, "999", "phoenix", "phx_reply", { status: "ok", response: {} });
  mock.timers.tick(10000);
  assert.equal(client.status.reason, "heartbeat timeout");
});

test("phx_error of this join makes the channel join again", () => {
  const { socket, statuses } = joined();
  const [joinRef] = socket.of("phx_join")[0];
  socket.receive(joinRef, joinRef, "realtime:room", "phx_error", { reason: "channel_crash" });
  assert.equal(statuses.at(-1), "errored: channel_crash");
  mock.timers.tick(1000);
  assert.equal(socket.of("phx_join").length, 2);
});

test("life-cycle events of an older join are ignored", () => {
  const { socket, channel } = joined();
  socket.receive("0", "0", "realtime:room", "phx_close", {});
  socket.receive(null, "0", "realtime:room", "phx_error", {});
  assert.equal(channel.status, "live");
});

test("nothing arrives after unsubscribe, and the name is free again", () => {
  const got = [];
  const { channel, socket, statuses } = joined([[TASKS, (change) => got.push(change)]]);
  channel.unsubscribe();
  socket.change([1], ROW);
  assert.deepEqual(got, []);
  assert.equal(statuses.at(-1), "closed");
  assert.equal(socket.of("phx_leave").length, 1);
  assert.notEqual(client.channel("room"), channel);
});

test("an unsubscribed channel is not joined again after a reconnect", () => {
  const { channel, socket } = joined();
  channel.unsubscribe();
  socket.drop();
  mock.timers.tick(1000);
  assert.deepEqual(Socket.last.accept().sent, []);
});

test("a new token is pushed to joined channels and used by later joins", () => {
  const { socket } = joined(undefined, { token: "old" });
  client.setToken("new");
  assert.deepEqual(socket.of("access_token")[0][4], { access_token: "new" });
  socket.drop();
  mock.timers.tick(1000);
  Socket.last.accept();
  assert.equal(Socket.last.of("phx_join")[0][4].access_token, "new");
});

test("the same token again is not pushed", () => {
  const { socket } = joined(undefined, { token: "jwt" });
  client.setToken("jwt");
  assert.equal(socket.of("access_token").length, 0);
});

test("a token that changes while the join is under way is pushed once it is answered", () => {
  opened({ token: "old" }).channel("room").subscribe();
  client.setToken("new");
  assert.equal(Socket.last.of("access_token").length, 0);
  Socket.last.grant();
  assert.deepEqual(Socket.last.of("access_token")[0][4], { access_token: "new" });
});

test("a channel that the server closed comes back with a new token", () => {
  const { channel, socket, statuses } = joined(undefined, { token: "old" });
  const [joinRef] = socket.of("phx_join")[0];
  socket.receive(joinRef, joinRef, "realtime:room", "phx_close", {});
  assert.equal(statuses.at(-1), "closed: the server closed the channel");
  assert.equal(channel.status, "closed");
  client.setToken("new");
  assert.equal(socket.of("phx_join").at(-1)[4].access_token, "new");
});

test("getToken is asked before the connection, with each heartbeat and after a close", async () => {
  const tokens = ["one", "two", "three"];
  client = connect(URL_, { WebSocket: Socket, getToken: async () => tokens.shift() });
  assert.equal(Socket.made.length, 0);
  await settle();
  client.channel("room").subscribe();
  Socket.last.accept().grant();
  assert.equal(Socket.last.of("phx_join")[0][4].access_token, "one");
  mock.timers.tick(25000);
  await settle();
  assert.deepEqual(Socket.last.of("access_token")[0][4], { access_token: "two" });
  const [joinRef] = Socket.last.of("phx_join")[0];
  Socket.last.receive(joinRef, joinRef, "realtime:room", "phx_close", {});
  await settle();
  assert.equal(Socket.last.of("phx_join").at(-1)[4].access_token, "three");
});

test("a getToken that fails is reported and the old token kept", async () => {
  const errors = [];
  const getToken = async () => { throw new Error("offline"); };
  client = connect(URL_, { WebSocket: Socket, token: "kept", getToken });
  client.on("error", (error) => errors.push(error.message));
  await settle();
  client.channel("room").subscribe();
  Socket.last.accept();
  assert.deepEqual(errors, ["offline"]);
  assert.equal(Socket.last.of("phx_join")[0][4].access_token, "kept");
});

test("a frame that cannot be read is reported and the connection goes on", () => {
  const errors = [];
  opened();
  client.on("error", (error) => errors.push(error.name));
  Socket.last.onmessage({ data: "{" });
  Socket.last.receive("too", "short");
  Socket.last.receive(null, null, 7, "system", {});
  Socket.last.receive(null, null, "realtime:room", "system", [1]);
  Socket.last.receiveBytes([1, 2]);
  assert.deepEqual(errors, Array(5).fill("SyntaxError"));
  assert.equal(client.status.status, "open");
});

test("a system message reaches the page", () => {
  const got = [];
  const channel = opened().channel("room").on("system", {}, (payload) => got.push(payload.message));
  channel.subscribe();
  const joinRef = Socket.last.grant();
  Socket.last.receive(joinRef, null, "realtime:room", "system", {
    status: "ok", extension: "postgres_changes", message: "Subscribed to PostgreSQL", channel: "room",
  });
  assert.deepEqual(got, ["Subscribed to PostgreSQL"]);
});

test("live is said only when the server has confirmed that changes flow", () => {
  const statuses = [];
  const channel = opened().channel("room").on("postgres_changes", TASKS, () => {});
  channel.subscribe((status) => statuses.push(status));
  Socket.last.grant({ confirm: false });
  assert.deepEqual(statuses, ["joining"]);
  Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL");
  assert.deepEqual(statuses, ["joining", "live"]);
});

test("without changes a channel is live with the answer to its join", () => {
  const statuses = [];
  opened().channel("room").subscribe((status) => statuses.push(status));
  Socket.last.grant();
  assert.deepEqual(statuses, ["joining", "live"]);
});

for (const extension of ["postgres_changes", "snapshot", "resume", "anything"]) {
  test(`an error of ${extension} is the channel's status and one line of the console`, () => {
    const lines = mock.method(console, "error", () => {});
    const statuses = [];
    const channel = opened().channel("room").on("postgres_changes", TASKS, () => {});
    channel.subscribe((status, error) => statuses.push(error ? `${status}: ${error.message}` : status));
    Socket.last.grant({ confirm: false });
    Socket.last.complain(extension, "no such table", { hint: "did you mean 'task'?" });
    Socket.last.complain(extension, "no such table", { hint: "did you mean 'task'?" });
    // Another binding works; what was refused does not.
    Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL");
    const text = "no such table (did you mean 'task'?)";
    assert.deepEqual(statuses, ["joining", `errored: ${text}`, `errored: ${text}`]);
    assert.equal(channel.status, "errored");
    assert.deepEqual(lines.mock.calls.map(({ arguments: [line] }) => line), [`realtime:room: ${text}`]);
    lines.mock.restore();
  });
}

test("after a refusal a rejoin that works is live", () => {
  const lines = mock.method(console, "error", () => {});
  const { channel, statuses, socket } = joined();
  socket.complain("postgres_changes", "not now");
  assert.equal(channel.status, "errored");
  socket.onclose({ code: 1006, reason: "" });
  mock.timers.tick(1000);
  Socket.last.accept();
  Socket.last.grant();
  Socket.last.tell("resume", "caught up", { seq: 10 });
  assert.equal(statuses.at(-1), "live");
  lines.mock.restore();
});

test("the reason why a channel ends is that of the system message before", () => {
  const lines = mock.method(console, "error", () => {});
  const { statuses, socket } = joined();
  socket.complain("system", "You no longer have permission");
  socket.receive(socket.join()[0], null, "realtime:room", "phx_error", {});
  assert.deepEqual(statuses.slice(1), ["live", "errored: You no longer have permission"]);
  assert.equal(lines.mock.callCount(), 1);
  lines.mock.restore();
});

test("the beginning of a snapshot is not its end", () => {
  const { channel, socket } = joined([[{ ...TASKS, snapshot: true }, () => {}]]);
  socket.tell("snapshot", "snapshot begins", { seq: 10 });
  assert.equal(channel.status, "catching up");
  socket.tell("snapshot", "snapshot complete", { seq: 12 });
  assert.equal(channel.status, "live");
});

test("a channel whose connection never comes about is not joining for ever", () => {
  client = connect(URL_, { WebSocket: Socket, random: () => 0.5, params: { apikey: "secret" } });
  const statuses = [];
  client.channel("room").subscribe((status, error) => statuses.push(error ? `${status}: ${error.message}` : status));
  Socket.last.drop();
  const text = `errored: the server did not accept a WebSocket at ${URL_}`;
  assert.deepEqual(statuses, ["joining", text]);
  mock.timers.tick(1000);
  Socket.last.drop();
  assert.deepEqual(statuses, ["joining", text]);
  mock.timers.tick(2000);
  Socket.last.accept();
  Socket.last.grant();
  assert.deepEqual(statuses, ["joining", text, "joining", "live"]);
});

test("a refused join is one line of the console however often it is refused, its hint included", () => {
  const lines = mock.method(console, "error", () => {});
  opened().channel("room").subscribe();
  for (const seconds of [1, 2, 30]) {
    const [joinRef, ref] = Socket.last.of("phx_join").at(-1);
    const response = { reason: `Token has expired ${seconds} seconds ago`, hint: "ask for another" };
    Socket.last.receive(joinRef, ref, "realtime:room", "phx_reply", { status: "error", response });
    mock.timers.tick(6500);
  }
  assert.deepEqual(
    lines.mock.calls.map(({ arguments: [line] }) => line),
    ["realtime:room: Token has expired 1 seconds ago (ask for another)"],
  );
  lines.mock.restore();
});

test("a connection that the server closed for a reason of its own is one line of the console", () => {
  const lines = mock.method(console, "error", () => {});
  opened();
  for (let attempt = 0; attempt < 2; attempt += 1) {
    Socket.last.drop(4401, "Token has expired");
    mock.timers.tick(10000);
    Socket.last.accept();
  }
  Socket.last.drop(1006);
  assert.deepEqual(
    lines.mock.calls.map(({ arguments: [line] }) => line),
    [`${URL_}: closed with code 4401: Token has expired`],
  );
  lines.mock.restore();
});

test("a getToken that fails and a frame that cannot be read are lines of the console", async () => {
  const lines = mock.method(console, "error", () => {});
  opened({ getToken: async () => Promise.reject(new Error("no session")) });
  await settle();
  Socket.last.accept();
  Socket.last.onmessage({ data: "{}" });
  assert.deepEqual(
    lines.mock.calls.map(({ arguments: [line] }) => line),
    [`${URL_}: no session`, `${URL_}: not a frame of five`],
  );
  lines.mock.restore();
});

for (const [what, config, begin] of [
  ["a confirmation", TASKS, () => Socket.last.grant({ confirm: false })],
  ["a snapshot", { ...TASKS, snapshot: true }, () => Socket.last.grant()],
  ["a replay", { ...TASKS, since: 5 }, () => Socket.last.grant()],
]) {
  test(`a server that owes ${what} and falls silent is reported, until it goes on`, () => {
    const lines = mock.method(console, "error", () => {});
    const channel = opened().channel("room").on("postgres_changes", config, () => {});
    channel.subscribe();
    begin();
    const before = channel.status;
    mock.timers.tick(25000);
    Socket.last.pulse();
    mock.timers.tick(25000);
    Socket.last.pulse();
    assert.equal(channel.status, before);
    mock.timers.tick(10000);
    assert.equal(channel.status, "errored");
    Socket.last.tell("postgres_changes", "Subscribed to PostgreSQL");
    Socket.last.tell("resume", "caught up", { seq: 10 });
    Socket.last.tell("snapshot", "snapshot complete", { seq: 10 });
    Socket.last.tell("resume", "caught up", { seq: 10 });
    assert.equal(channel.status, "live");
    assert.equal(lines.mock.calls.filter(({ arguments: [line] }) => line.includes("what it owes")).length, 1);
    mock.timers.tick(20000);
    Socket.last.pulse();
    assert.equal(channel.status, "live");
    lines.mock.restore();
  });
}

test("a name that is open as a public topic is not handed out as a private one", () => {
  const channel = opened().channel("room");
  assert.equal(client.channel("room"), channel);
  assert.throws(() => client.channel("room", { private: true }), /open as a public topic/);
  channel.unsubscribe();
  assert.equal(client.channel("room", { private: true }).isPrivate, true);
});

test("a null payload is read as an empty one", () => {
  assert.deepEqual(decodeFrame('[null,null,"realtime:room","system",null]').payload, {});
});

test("close leaves the channels, closes the socket and never comes back", () => {
  const { socket, statuses } = joined();
  client.close();
  assert.equal(statuses.at(-1), "closed");
  assert.equal(socket.closed, true);
  assert.deepEqual(client.status.retryInMs, undefined);
  mock.timers.tick(60000);
  assert.equal(Socket.made.length, 1);
});

test("a listener that was taken off hears nothing more", () => {
  opened();
  const seen = [];
  const off = client.on("status", ({ status }) => seen.push(status));
  off();
  Socket.last.drop();
  assert.deepEqual(seen, []);
});
