/**
 * A small client for pages without a build step: row changes and broadcasts over one WebSocket.
 *
 *     import { connect } from "/static/realtime/client.js";
 *
 *     const client = connect("/realtime");            // the Django session says who you are
 *     client
 *       .channel("board")
 *       .on("postgres_changes", { event: "*", schema: "public", table: "demo_task" }, (change) => {
 *         console.log(change.seq, change.eventType, change.new, change.old);
 *       })
 *       .subscribe((status, error) => console.log(status, error?.message ?? ""), {
 *         onResync: () => readAllRowsAgain(),
 *       });
 *
 * It joins, rejoins after every lost connection (waiting 1, 2, 5, then 10 s, each varied by a
 * quarter so that many pages do not return at once), keeps the connection alive, notices when it
 * is dead, and hands new tokens to the server.
 *
 * It keeps no rows, but every channel keeps its place in the server's log. After a loss it asks
 * for what came since, and the page gets each change once and in order, as if nothing had been:
 * "joining", "catching up", "live". Where the server cannot give what was missed (its log does not
 * reach back so far, or is another one), the status is "resynced" and `onResync` is called: only
 * then need a page read its rows again. The first time it reads them once it is "live", or it
 * goes on from a cursor that it kept with its rows: `subscribe(callback, { since: cursor })`.
 *
 * With npm at hand use `@supabase/supabase-js`, which speaks to the same server and does more
 * (presence, sending bytes, typed rows). This file has no dependencies and sets no globals.
 *
 * Wire: Phoenix channels, serializer 2.0.0. Text frames, and binary frames of kind 4 (broadcast).
 */

const BACKOFF_MS = [1000, 2000, 5000, 10000];
const HEARTBEAT_MS = 25000;
const REPLY_TIMEOUT_MS = 10000;
const PREFIX = "realtime:";

/**
 * @typedef {object} ConnectOptions
 * @property {string} [token] JWT sent with every join. Without one, the server uses the session.
 * @property {() => (string|null|Promise<string|null>)} [getToken] Asked before each connection,
 *   with each heartbeat, and when a channel was refused or closed; what it returns replaces `token`.
 * @property {Record<string, string>} [params] Extra query parameters, for example `{apikey: "…"}`.
 * @property {typeof WebSocket} [WebSocket] Constructor to use where there is no global one.
 * @property {() => number} [random] Source of jitter, 0 ≤ x < 1. Default `Math.random`.
 */

/**
 * @typedef {object} Change
 * @property {"INSERT"|"UPDATE"|"DELETE"} eventType
 * @property {string} schema
 * @property {string} table
 * @property {Record<string, unknown>} new The row after the change; `{}` for a DELETE.
 * @property {Record<string, unknown>} old What may be known of the row before; `{}` for an INSERT.
 * @property {string} commit_timestamp ISO 8601, microseconds, UTC; unique and rising.
 * @property {number|undefined} seq Place in the server's log, rising.
 * @property {number[]} ids Ids of the bindings of this channel that the change matches.
 * @property {{name: string, type: string}[]} columns
 * @property {string[]|null} errors
 * @property {boolean} snapshot True for a row that was there before the subscription.
 */

/**
 * @typedef {object} Status
 * @property {"connecting"|"open"|"closed"} status
 * @property {number} [code] Close code, when the server or the network closed the connection.
 * @property {string} [reason]
 * @property {number} [retryInMs] When the next attempt starts; absent after `close()`.
 */

/**
 * How a channel is:
 *
 * - "idle": not subscribed yet.
 * - "joining": asked for, now or as soon as there is a connection.
 * - "catching up": joined; what came since the cursor, or a snapshot, is under way.
 * - "live": joined; changes arrive as they are committed.
 * - "resynced": joined, and changes arrive, but some were missed that never will. It lasts until
 *   what `onResync` returned has settled; then the channel is "live".
 * - "errored": not joined; it will be tried again.
 * - "closed": not joined: for good after `unsubscribe`, else until a new token or connection.
 *
 * @typedef {"idle"|"joining"|"catching up"|"live"|"resynced"|"errored"|"closed"} ChannelStatus
 */

/**
 * @typedef {object} SubscribeOptions
 * @property {string|number} [since] Where to begin: a `channel.cursor` that the page kept, or a
 *   change's `commit_timestamp` or `seq`. A binding with a `since` of its own begins there.
 * @property {() => (void|Promise<void>)} [onResync] Reads the page's rows again, as often as that
 *   takes; a page that lives on a `snapshot` forgets them, for they come again. Changes go on
 *   arriving meanwhile, and belong on top of what it reads. When more is missed it is called again,
 *   also before an earlier call has settled.
 */

/**
 * Opens a connection and keeps it open until `close()`.
 *
 * @param {string} url Path on this host ("/realtime") or a full ws, wss, http or https URL.
 * @param {ConnectOptions} [options]
 * @returns {Client}
 * @throws {TypeError} when the URL is not one, or there is no WebSocket to use.
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}

/**
 * Reads one frame.
 *
 * @param {string|ArrayBuffer} data
 * @returns {{joinRef: ?string, ref: ?string, topic: string, event: string, payload: any}}
 * @throws {SyntaxError} when it is not a frame of serializer 2.0.0.
 */
export function decodeFrame(data) {
  if (typeof data === "string") {
    const parts = JSON.parse(data);
    if (!Array.isArray(parts) || parts.length !== 5) throw new SyntaxError("not a frame of five");
    const [joinRef, ref, topic, event, payload] = parts;
    return { joinRef, ref, topic, event, payload: payload ?? {} };
  }
  const bytes = new Uint8Array(data);
  if (bytes.length < 5 || bytes[0] !== 4) throw new SyntaxError("not a broadcast frame (kind 4)");
  const [, topicSize, eventSize, metaSize, encoding] = bytes;
  const utf8 = new TextDecoder();
  let offset = 5;
  const take = (size) => utf8.decode(bytes.subarray(offset, (offset += size)));
  const topic = take(topicSize);
  const event = take(eventSize);
  const meta = take(metaSize);
  if (offset > bytes.length) throw new SyntaxError("a frame that ends before its parts do");
  const rest = bytes.slice(offset);
  const payload = {
    type: "broadcast",
    event,
    payload: encoding === 1 ? JSON.parse(utf8.decode(rest)) : rest.buffer,
  };
  if (meta) payload.meta = JSON.parse(meta);
  return { joinRef: null, ref: null, topic, event: "broadcast", payload };
}

/** Rising waits with jitter. */
class Backoff {
  #attempt = 0;
  #random;

  constructor(random) {
    this.#random = random;
  }

  next() {
    const base = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)];
    this.#attempt += 1;
    return Math.round(base * (0.75 + this.#random() / 2));
  }

  reset() {
    this.#attempt = 0;
  }
}

/** Calls a page's callback; what it throws is reported and stops nothing else. */
function call(callback, ...args) {
  try {
    callback(...args);
  } catch (error) {
    report(error);
  }
}

function report(error) {
  (globalThis.reportError ?? console.error)(error);
}

/**
 * How far a channel, and each of its bindings, has come in the server's log. Pure: it is told what
 * the server sent, and knows what to ask for after a loss and which changes the page has already.
 *
 * The cursor says "everything up to here was received". So it moves only with what proves that: a
 * change, because changes come in order; the end of a replay; the head in a heartbeat's answer,
 * which is sent after all changes up to it unless a replay or a snapshot is still under way.
 */
class Progress {
  #epoch = null;
  #seq = null;
  #joinEpoch = null;
  #newEpochIsTold = false;
  #start;
  #places;
  #oneFrameEach;
  #pending = new Set();

  /**
   * @param {object[]} configs The channel's bindings of changes, in order.
   * @param {string|number|null} start Where the page wants to begin; null: now.
   */
  constructor(configs, start) {
    this.#start = start;
    this.#places = configs.map((config) => ({
      config, from: 0, seq: null, rows: new Set(), had: new Set(),
    }));
    // A change is one frame, unless bindings want different columns of it, or one change of
    // permissions brings many rows: then the next frame may be of the same change.
    const selects = new Set(configs.map((config) => JSON.stringify(config.select ?? null)));
    this.#oneFrameEach = selects.size < 2 && !configs.some((config) => config.live);
    const named = /^([\w-]+):(\d+)$/.exec(start ?? "");
    // Where a binding begins elsewhere, it is not true that everything up to here is known.
    if (named && configs.every((config) => config.since == null)) {
      this.#restart(named[1], Number(named[2]));
    }
  }

  /** @returns {?string} "<epoch>:<seq>"; null while no place in the log is known. */
  get cursor() {
    return this.#epoch === null || this.#seq === null ? null : `${this.#epoch}:${this.#seq}`;
  }

  /** @returns {boolean} Whether a replay or a snapshot is under way. */
  get pending() {
    return this.#pending.size > 0;
  }

  /** What to join with: each binding goes on where it was, or begins where the page said. */
  ask() {
    return this.#places.map(({ config, from, seq }) => {
      // A snapshot that was cut off is asked for anew: its rows do not come in order. One that is
      // complete is what the server falls back on where it cannot resume.
      if (config.snapshot && this.#pending.has("snapshot")) return config;
      const known = seq !== null && this.cursor !== null;
      const since = known
        ? `${this.#epoch}:${Math.max(from, this.#seq)}`
        : (config.since ?? this.#start);
      return since == null ? config : { ...config, since };
    });
  }

  /**
   * The join was granted.
   *
   * @param {object[]} asked What `ask` said.
   * @param {{epoch?: string, seq?: number}} head As the reply names it.
   */
  joined(asked, { epoch = null, seq = null }) {
    this.#joinEpoch = epoch;
    for (const place of this.#places) place.had = new Set(place.rows);
    this.#pending.clear();
    asked.forEach((config, index) => {
      if (config.since != null) this.#pending.add("replay");
      else if (config.snapshot) this.#pending.add("snapshot");
      // Begins at the head, while others are still on their way there.
      else if (epoch !== null) this.#put(this.#places[index], seq, seq);
    });
    if (!this.pending) this.#restart(epoch, seq);
  }

  /**
   * A row of a snapshot has come, or the end of one.
   *
   * @returns {boolean} Whether it is the beginning of one that nobody waited for: the server cannot
   *   go on from where the channel was, and sends all its rows anew.
   */
  pictured() {
    if (this.#pending.has("snapshot")) return false;
    this.#pending.add("snapshot");
    this.#restart(this.#joinEpoch, null);
    this.#newEpochIsTold = true;
    return true;
  }

  /** A change of this seq has come, and with it everything before. */
  passed(seq) {
    if (this.#pending.has("snapshot") || !Number.isInteger(seq)) return;
    this.#epoch ??= this.#joinEpoch;
    this.#seq = Math.max(this.#seq ?? 0, this.#oneFrameEach ? seq : seq - 1);
  }

  /** Whether the page does not have this change yet from binding number `index`. */
  isNew(index, { seq, snapshot, type, schema, table, record, old_record }) {
    if (snapshot || !Number.isInteger(seq)) return true;
    const place = this.#places[index];
    if (place.seq !== null && seq < place.seq) return false;
    const isNext = seq !== place.seq;
    if (isNext) this.#put(place, seq);
    if (!place.config.live) return isNext;
    // One change may move many rows of a live set, all with its seq, and a cut may have come
    // between them. Only what came over an earlier join is a repetition.
    const row = JSON.stringify([type, schema, table, record ?? old_record]);
    place.rows.add(row);
    return !place.had.has(row);
  }

  /** The server has sent all of the "replay" or the "snapshot", up to `seq`. */
  ended(what, seq) {
    this.#pending.delete(what);
    if (this.pending || !Number.isInteger(seq)) return;
    this.#epoch = this.#joinEpoch;
    this.#reached(seq);
  }

  /** Changes were missed for good; from `seq` on the channel has everything again. */
  resynced(seq) {
    this.#pending.clear();
    this.#restart(this.#joinEpoch, seq ?? null);
    this.#newEpochIsTold = true;
  }

  /** A heartbeat was answered with the head. */
  heard({ epoch, seq }) {
    if (this.pending || this.cursor === null || !Number.isInteger(seq)) return;
    // A new log is told of by a resync or a snapshot, which do not name it; unless there was one,
    // a strange epoch proves nothing.
    if (epoch === this.#epoch) this.#reached(seq);
    else if (this.#newEpochIsTold) this.#restart(epoch, seq);
    else return;
    this.#newEpochIsTold = false;
  }

  #reached(seq) {
    this.#seq = Math.max(this.#seq ?? 0, seq);
    for (const place of this.#places) {
      if (place.seq === null || place.seq < seq) this.#put(place, seq);
    }
  }

  #restart(epoch, seq) {
    this.#epoch = epoch;
    this.#seq = seq;
    for (const place of this.#places) this.#put(place, seq);
  }

  #put(place, seq, from = 0) {
    place.seq = seq;
    place.from = from;
    place.rows.clear();
    place.had.clear();
  }
}

function endpointOf(url, params) {
  const endpoint = new URL(url, globalThis.location?.href);
  endpoint.protocol = endpoint.protocol.replace("http", "ws");
  endpoint.searchParams.set("vsn", "2.0.0");
  for (const [name, value] of Object.entries(params)) endpoint.searchParams.set(name, value);
  return endpoint.href;
}

/** One connection and its channels. Made by `connect`. */
export class Client {
  #endpoint;
  #WebSocket;
  #random;
  #backoff;
  #token;
  #getToken;
  #channels = new Map();
  #listeners = { status: new Set(), error: new Set() };
  #status = { status: "closed" };
  #socket = null;
  #timers = { open: null, retry: null, beat: null, pulse: null };
  #beatRef = null;
  #ref = 0;
  #attempt = 0;
  #wanted = true;
  #wake = () => this.#wakeUp();

  /**
   * @param {string} url
   * @param {ConnectOptions} options
   */
  constructor(url, options) {
    this.#endpoint = endpointOf(url, options.params ?? {});
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new TypeError("no WebSocket here: pass the option WebSocket");
    this.#random = options.random ?? Math.random;
    this.#backoff = new Backoff(this.#random);
    this.#token = options.token ?? null;
    this.#getToken = options.getToken ?? null;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#open();
  }

  /** @returns {Status} The latest status, as given to `on("status")`. */
  get status() {
    return this.#status;
  }

  /**
   * Listens to the connection: "status" gets a {@link Status}, "error" an Error (a frame that
   * could not be read, a `getToken` that failed). The connection goes on after either.
   *
   * @param {"status"|"error"} type
   * @param {(value: any) => void} callback
   * @returns {() => void} Stops listening.
   */
  on(type, callback) {
    if (!this.#listeners[type]) throw new TypeError(`no such event: ${type}`);
    this.#listeners[type].add(callback);
    return () => this.#listeners[type].delete(callback);
  }

  /**
   * The channel of this name; the same object until it is unsubscribed.
   *
   * @param {string} name Without "realtime:".
   * @param {{private?: boolean, self?: boolean, ack?: boolean, resume?: boolean}} [options]
   *   `private` asks the topic's policies, `self` also returns what this page broadcasts, `ack`
   *   asks for receipts; `resume: false` begins every rejoin with what comes then, and says nothing
   *   of what was missed: it is for pages that read their rows again whenever it is "live".
   * @returns {Channel}
   */
  channel(name, options = {}) {
    const topic = PREFIX + name;
    let channel = this.#channels.get(topic);
    if (!channel) {
      channel = new Channel(topic, options, {
        push: (...frame) => this.#push(...frame),
        ref: () => this.#nextRef(),
        token: () => this.#token,
        isOpen: () => this.#status.status === "open",
        settled: () => this.#backoff.reset(),
        refused: () => this.#refreshToken(),
        forget: () => this.#channels.get(topic) === channel && this.#channels.delete(topic),
        backoff: new Backoff(this.#random),
      });
      this.#channels.set(topic, channel);
    }
    return channel;
  }

  /**
   * Takes a new token: told to every joined channel at once, used by every later join, and tried
   * on channels that the server had closed. `null` returns to the session at the next join.
   *
   * @param {?string} token
   */
  setToken(token) {
    if (token === this.#token) return;
    this.#token = token;
    for (const channel of this.#channels.values()) channel._tokenChanged();
  }

  /** Closes the connection and all channels for good. */
  close() {
    this.#wanted = false;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    for (const channel of [...this.#channels.values()]) channel.unsubscribe();
    this.#lost({ code: 1000, reason: "closed by the page" });
  }

  async #open() {
    const attempt = ++this.#attempt;
    clearTimeout(this.#timers.retry);
    this.#setStatus({ status: "connecting" });
    if (this.#getToken) await this.#refreshToken();
    if (attempt !== this.#attempt || !this.#wanted) return;
    let socket;
    try {
      socket = new this.#WebSocket(this.#endpoint);
    } catch (error) {
      // Refused by the browser itself, such as ws from a page served over https.
      this.#emit("error", error);
      this.#lost({ reason: error.message });
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = (message) => this.#received(message.data);
    socket.onclose = (event) => this.#lost({ code: event.code, reason: event.reason });
    this.#timers.open = setTimeout(
      () => this.#lost({ reason: "no answer to the handshake" }),
      REPLY_TIMEOUT_MS,
    );
  }

  #opened() {
    clearTimeout(this.#timers.open);
    this.#setStatus({ status: "open" });
    this.#timers.beat = setTimeout(() => this.#beat(), HEARTBEAT_MS);
    for (const channel of this.#channels.values()) channel._connected();
  }

  #beat() {
    this.#beatRef = this.#nextRef();
    this.#push(null, this.#beatRef, "phoenix", "heartbeat", {});
    this.#timers.pulse = setTimeout(
      () => this.#lost({ reason: "heartbeat timeout" }),
      REPLY_TIMEOUT_MS,
    );
    if (this.#getToken) this.#refreshToken();
  }

  #received(data) {
    let frame;
    try {
      frame = decodeFrame(data);
    } catch (error) {
      this.#emit("error", error);
      return;
    }
    if (frame.topic === "phoenix") {
      if (frame.event !== "phx_reply" || frame.ref !== this.#beatRef) return;
      this.#beatRef = null;
      clearTimeout(this.#timers.pulse);
      this.#timers.beat = setTimeout(() => this.#beat(), HEARTBEAT_MS);
      this.#backoff.reset();
      for (const channel of this.#channels.values()) channel._heard(frame.payload.response ?? {});
      return;
    }
    this.#channels.get(frame.topic)?._received(frame);
  }

  /** The connection is gone, or is given up: a dead network never sends the close event. */
  #lost({ code, reason }) {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = null;
    this.#attempt += 1;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const retryInMs = this.#wanted ? this.#backoff.next() : undefined;
    if (this.#wanted) this.#timers.retry = setTimeout(() => this.#open(), retryInMs);
    this.#setStatus({ status: "closed", code, reason, retryInMs });
    for (const channel of this.#channels.values()) channel._disconnected(reason);
  }

  /** The network or the tab came back: do not wait out the back-off. */
  #wakeUp() {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#wanted && this.#status.status === "closed") this.#open();
  }

  async #refreshToken() {
    if (!this.#getToken) return;
    try {
      const token = await this.#getToken();
      if (this.#wanted) this.setToken(token ?? null);
    } catch (error) {
      this.#emit("error", error);
    }
  }

  #push(joinRef, ref, topic, event, payload) {
    if (this.#status.status !== "open") return;
    this.#socket.send(JSON.stringify([joinRef, ref, topic, event, payload]));
  }

  #nextRef() {
    this.#ref += 1;
    return String(this.#ref);
  }

  #setStatus(status) {
    this.#status = status;
    this.#emit("status", status);
  }

  #emit(type, value) {
    for (const callback of this.#listeners[type]) call(callback, value);
  }
}

/**
 * A topic on a connection. Made by `client.channel`.
 *
 * States: idle → joining → joined; waiting (will rejoin by itself: refused, failed, or no
 * connection); shut (the server closed it: rejoins with a new token or connection); left (for good).
 */
export class Channel {
  #topic;
  #options;
  #link;
  #bindings = [];
  #state = "idle";
  #status = "idle";
  #joinRef = null;
  #joinToken = null;
  #asked = [];
  #progress = null;
  #since = null;
  #wasJoined = false;
  #refetches = 0;
  #refetching = null;
  #onStatus = () => {};
  #onResync = () => {};
  #timer = null;

  /** @private Use `client.channel`. */
  constructor(topic, options, link) {
    this.#topic = topic;
    this.#options = options;
    this.#link = link;
  }

  /** @returns {ChannelStatus} The latest status, as given to the callback of `subscribe`. */
  get status() {
    return this.#status;
  }

  /**
   * The place in the log up to which this channel has received everything, for `subscribe` in
   * another page. Kept with the rows, and written together with them, it makes a reload no loss;
   * where bindings are `live` or differ in `select`, another page may get the last change again.
   *
   * @returns {?string} "<epoch>:<seq>"; null when the server has named no place, and while rows
   *   that were missed are read again (`onResync`).
   */
  get cursor() {
    return this.#refetching === null ? (this.#progress?.cursor ?? null) : null;
  }

  /**
   * Registers a callback, before or after `subscribe`; "postgres_changes" only before.
   *
   * - "postgres_changes", with `{event, schema, table, filter, select}` (`event` is "INSERT",
   *   "UPDATE", "DELETE" or "*"; further keys such as `snapshot` and `live` reach the server too,
   *   `since` until the channel has a cursor): gets a {@link Change}.
   * - "broadcast", with `{event}` (a name or "*"): gets `{type, event, payload, meta?}`.
   * - "system" and any other event of the wire, with `{}`: gets its payload.
   *
   * @param {string} type
   * @param {Record<string, any>} config
   * @param {(value: any) => void} callback
   * @returns {this}
   * @throws {Error} when changes are asked for after `subscribe`.
   */
  on(type, config, callback) {
    if (type === "postgres_changes" && this.#state !== "idle") {
      throw new Error("changes are part of the join: call on() before subscribe()");
    }
    this.#bindings.push({ type, config, callback, id: null });
    return this;
  }

  /**
   * Joins, now or when the connection opens, and again after every loss, where it left off.
   *
   * @param {(status: ChannelStatus, error?: Error) => void} [callback] Called with each new status;
   *   "errored", and "closed" by the server, come with an error.
   * @param {SubscribeOptions} [options]
   * @returns {this}
   * @throws {Error} when called twice, or after `unsubscribe`.
   */
  subscribe(callback = () => {}, { since = null, onResync = () => {} } = {}) {
    if (this.#state !== "idle") throw new Error(`already ${this.#status}: subscribe only once`);
    this.#onStatus = callback;
    this.#onResync = onResync;
    this.#since = since;
    this.#state = "waiting";
    this.#tell("joining");
    this.#join();
    return this;
  }

  /** Leaves. Nothing arrives after this; `client.channel` then makes a new one of the name. */
  unsubscribe() {
    if (this.#state === "left") return;
    clearTimeout(this.#timer);
    if (this.#state === "joined" || this.#state === "joining") this.#push("phx_leave", {});
    this.#state = "left";
    this.#link.forget();
    this.#tell("closed");
  }

  /**
   * Sends a broadcast to the others of this topic.
   *
   * @param {string} event
   * @param {object} payload Anything JSON.
   * @throws {Error} when the channel is not joined.
   */
  send(event, payload) {
    if (this.#state !== "joined") throw new Error(`not joined but ${this.#status}`);
    this.#push("broadcast", { type: "broadcast", event, payload });
  }

  /** @private */
  _connected() {
    if (this.#state === "waiting" || this.#state === "shut") this.#join();
  }

  /** @private */
  _disconnected(reason) {
    if (this.#state !== "joined" && this.#state !== "joining") return;
    clearTimeout(this.#timer);
    this.#state = "waiting";
    this.#tell("errored", new Error(reason || "connection lost"));
  }

  /** @private */
  _heard(head) {
    if (this.#state === "joined") this.#progress.heard(head);
  }

  /** @private */
  _tokenChanged() {
    const token = this.#link.token();
    if (this.#state === "joined" && token !== null) {
      this.#joinToken = token;
      this.#push("access_token", { access_token: token });
    } else if (this.#state === "shut") {
      this.#state = "waiting";
      this.#join();
    }
  }

  /** @private */
  _received({ joinRef, ref, event, payload }) {
    if (joinRef !== null && joinRef !== this.#joinRef) return;
    if (this.#state !== "joined" && this.#state !== "joining") return;
    const ours = ref === null || ref === this.#joinRef;
    if (event === "phx_reply") {
      if (ref === this.#joinRef && this.#state === "joining") this.#answered(payload);
    } else if (event === "phx_error") {
      if (ours) this.#retry(payload.reason ?? "the channel failed");
    } else if (event === "phx_close") {
      if (ours) this.#shut();
    } else if (event === "postgres_changes") {
      this.#changed(payload);
    } else {
      if (event === "system" && this.#state === "joined") this.#told(payload);
      for (const binding of this.#bindings) {
        if (binding.type !== event) continue;
        const wanted = binding.config?.event ?? "*";
        if (event === "broadcast" && wanted !== "*" && wanted !== payload.event) continue;
        call(binding.callback, payload);
      }
    }
  }

  #join() {
    clearTimeout(this.#timer);
    if (!this.#link.isOpen()) return;
    this.#state = "joining";
    this.#joinRef = this.#link.ref();
    this.#joinToken = this.#link.token();
    if (this.#progress === null || this.#options.resume === false) {
      const configs = this.#changeBindings().map((binding) => binding.config);
      this.#progress = new Progress(configs, this.#wasJoined ? null : this.#since);
    }
    this.#asked = this.#progress.ask();
    const config = {
      broadcast: { self: Boolean(this.#options.self), ack: Boolean(this.#options.ack) },
      presence: { key: "", enabled: false },
      postgres_changes: this.#asked,
      private: Boolean(this.#options.private),
    };
    const payload = { config };
    if (this.#joinToken !== null) payload.access_token = this.#joinToken;
    this.#link.push(this.#joinRef, this.#joinRef, this.#topic, "phx_join", payload);
    this.#timer = setTimeout(() => this.#timedOut(), REPLY_TIMEOUT_MS);
    if (this.#status !== "joining") this.#tell("joining");
  }

  #answered({ status, response }) {
    clearTimeout(this.#timer);
    if (status !== "ok") {
      const reason = typeof response === "string" ? response : response?.reason;
      this.#link.refused();
      this.#retry(reason ?? "the join was refused");
      return;
    }
    const granted = response?.postgres_changes ?? [];
    const asked = this.#changeBindings();
    if (granted.length !== asked.length) {
      this.#push("phx_leave", {});
      this.#retry("the server granted other changes than were asked for");
      return;
    }
    asked.forEach((binding, index) => (binding.id = granted[index].id));
    this.#state = "joined";
    this.#progress.joined(this.#asked, response ?? {});
    this.#link.backoff.reset();
    this.#link.settled();
    if (this.#link.token() !== this.#joinToken) this._tokenChanged();
    // Joined again without a place to go on from: what came meanwhile is lost.
    const isGap = this.#wasJoined && asked.length > 0 && this.#asked.every(({ since }) => since == null);
    this.#wasJoined = true;
    if (isGap && this.#options.resume !== false) this.#resync();
    else this.#settle();
  }

  /** What the server says of a replay or a snapshot. */
  #told({ extension, message, status, seq }) {
    if (extension === "resume" && message === "resync required") {
      this.#progress.resynced(seq);
      this.#resync();
    } else if (extension === "snapshot" && status === "ok") {
      if (this.#progress.pictured()) this.#resync();
      this.#progress.ended("snapshot", seq);
      this.#settle();
    } else if (extension === "resume" && status === "ok") {
      if (message !== "caught up") return;
      this.#progress.ended("replay", seq);
      this.#settle();
    }
  }

  /** The page has to read its rows again; until it has, the channel is not called live. */
  #resync() {
    const refetch = (this.#refetches += 1);
    this.#refetching = refetch;
    this.#tell("resynced");
    let done;
    try {
      done = this.#onResync();
    } catch (error) {
      report(error);
    }
    const finish = () => {
      if (this.#refetching !== refetch) return;
      this.#refetching = null;
      if (this.#state === "joined") this.#settle();
    };
    if (typeof done?.then === "function") done.then(undefined, report).then(finish);
    else finish();
  }

  /** Joined: says how the channel is now. */
  #settle() {
    const status = this.#progress.pending ? "catching up"
      : this.#refetching !== null ? "resynced"
      : "live";
    if (status !== this.#status) this.#tell(status);
  }

  #changed({ ids, data }) {
    if (this.#state !== "joined") return;
    const change = {
      eventType: data.type,
      schema: data.schema,
      table: data.table,
      new: data.record ?? {},
      old: data.old_record ?? {},
      commit_timestamp: data.commit_timestamp,
      seq: data.seq,
      ids,
      columns: data.columns ?? [],
      errors: data.errors ?? null,
      snapshot: data.snapshot === true,
    };
    if (change.snapshot && this.#progress.pictured()) this.#resync();
    this.#progress.passed(data.seq);
    this.#changeBindings().forEach(({ id, config, callback }, index) => {
      if (!ids.includes(id)) return;
      if (![undefined, "*", change.eventType].includes(config.event)) return;
      if (this.#progress.isNew(index, data)) call(callback, change);
    });
  }

  #timedOut() {
    this.#push("phx_leave", {}); // the server may have joined us after all
    this.#retry("no reply to the join");
  }

  #retry(message) {
    clearTimeout(this.#timer);
    this.#state = "waiting";
    this.#timer = setTimeout(() => this.#join(), this.#link.backoff.next());
    this.#tell("errored", new Error(message));
  }

  #shut() {
    clearTimeout(this.#timer);
    this.#state = "shut";
    this.#tell("closed", new Error("the server closed the channel"));
    this.#link.refused();
  }

  #push(event, payload) {
    this.#link.push(this.#joinRef, this.#link.ref(), this.#topic, event, payload);
  }

  #changeBindings() {
    return this.#bindings.filter((binding) => binding.type === "postgres_changes");
  }

  #tell(status, error) {
    this.#status = status;
    call(this.#onStatus, status, error);
  }
}
