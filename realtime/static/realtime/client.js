/**
 * A small client for pages without a build step: row changes, broadcasts and presence over one
 * WebSocket. This is the file to import; the others beside it are its parts.
 *
 *     // `connect` is what this module exports; in templates its URL is {% static "realtime/client.js" %}.
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
 * is dead, and sends new tokens to the server.
 *
 * Rows that a page shows are best kept by a collection: a set that is always the server's,
 * whatever happens to the connection or to what the user may see.
 *
 *     const open = client.collection("demo_task", { filter: "status=eq.open", order: "position" });
 *     open.subscribe(() => draw(open.rows, open.status));
 *
 * A collection takes writes, too: what is written is shown at once, and goes when the server refuses it.
 *
 *     const tasks = client.collection("demo_task", { writes: rest("/api/tasks/") });
 *     tasks.update(7, { status: "done" });
 *
 * A channel keeps no rows, but its position in the server's log. After a loss it asks
 * for what came since, and the page gets each change once and in order:
 * "joining", "catching up", "live". Where the server no longer has what was missed (its log was
 * pruned, or is another one), the status is "resynced" and `onResync` is called: only
 * then need a page read its rows again. The first time it reads them once it is "live", or it
 * goes on from a cursor that it kept with its rows: `subscribe(callback, { since: cursor })`.
 *
 * Pages talk to each other by broadcasts, and tell who is there by presence:
 *
 *     const room = client.channel("team:7", { private: true, ack: true, presenceKey: "ada" });
 *     room.on("broadcast", { event: "typing" }, ({ payload }) => console.log(payload.name));
 *     room.on("presence", { event: "sync" }, () => console.log(Object.keys(room.presenceState())));
 *     room.subscribe();
 *     room.track({ name: "Ada" });                       // shown as soon as it can be
 *     await room.send("typing", { name: "Ada" });        // or bytes; with `ack` it may be refused
 *
 * With npm at hand `@supabase/supabase-js` speaks to the same server. This one has no dependencies
 * and sets no globals.
 *
 * Wire: Phoenix channels, serializer 2.0.0. Text frames, and binary frames of kind 3 (broadcast of
 * bytes, sent) and 4 (broadcast, received).
 */

import { Backoff } from "./backoff.js";
import { call } from "./callbacks.js";
import { Channel } from "./channel.js";
import { Collection } from "./collection.js";
import { Complaints } from "./complaints.js";
import { bindingOf, followChannel, topicOf } from "./following.js";
import { decodeFrame, encodeFrame } from "./frames.js";
import { RefusedError } from "./receipts.js";
import { REPLY_TIMEOUT_MS } from "./replies.js";
import { rest } from "./rest.js";
import { Write } from "./writing.js";

export { Channel, Collection, decodeFrame, RefusedError, rest, Write };

const HEARTBEAT_MS = 25000;
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
 * @typedef {object} Status
 * @property {"connecting"|"open"|"closed"} status
 * @property {number} [code] Close code, when the server or the network closed the connection.
 * @property {string} [reason]
 * @property {number} [retryInMs] When the next attempt starts; absent after `close()`.
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
  #complaints;
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
    this.#complaints = new Complaints(this.#endpoint.split("?")[0]);
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
   * could not be read, a `getToken` that failed), which is a line of the console too. The connection
   * goes on after either.
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
   * @param {import("./channel.js").ChannelOptions} [options] Of the first call for this name.
   * @returns {Channel}
   * @throws {TypeError} when options contradict each other, or the channel that is there.
   */
  channel(name, options = {}) {
    const topic = PREFIX + name;
    const existing = this.#channels.get(topic);
    if (existing) {
      // A public and a private topic of one name are separate.
      if ("private" in options && Boolean(options.private) !== existing.isPrivate) {
        throw new TypeError(`${name} is open as a ${existing.isPrivate ? "private" : "public"} topic`);
      }
      return existing;
    }
    const channel = new Channel(topic, options, {
      send: (frame) => this.#send(frame),
      ref: () => this.#nextRef(),
      token: () => this.#token,
      isOpen: () => this.#status.status === "open",
      settled: () => this.#backoff.reset(),
      refused: () => this.#refreshToken(),
      forget: () => this.#channels.get(topic) === channel && this.#channels.delete(topic),
      backoff: new Backoff(this.#random),
    });
    this.#channels.set(topic, channel);
    return channel;
  }

  /**
   * The rows of a table that this page may see and the filter lets through, kept exact from now
   * on until `close`: a snapshot first, then every change, also those of permissions, and after a
   * lost connection what was missed.
   *
   * @param {string} table Its name in the database, such as "demo_task".
   * @param {import("./collection.js").CollectionOptions} [options]
   * @returns {Collection}
   * @throws {TypeError} when the topic is in use, or an option is unknown.
   */
  collection(table, options = {}) {
    const binding = bindingOf(table, options);
    const topic = topicOf(table, options);
    const checkFree = () => {
      if (!this.#channels.has(PREFIX + topic)) return;
      throw new TypeError(`${topic} is open already: a collection needs a topic of its own`);
    };
    checkFree();
    const open = () => {
      if (!this.#wanted) return null;
      checkFree(); // the page may have taken it while the collection was between two channels
      return this.channel(topic, { private: Boolean(options.private) });
    };
    return new Collection(table, options, (feed) =>
      followChannel(open, binding, feed, new Backoff(this.#random)),
    );
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
    socket.onclose = (event) => this.#ended(event);
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
    this.#send(encodeFrame(null, this.#beatRef, "phoenix", "heartbeat", {}));
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

  /** The server or the network ended the connection, or never let it begin. */
  #ended({ code, reason }) {
    const isRefused = this.#status.status === "connecting" && !reason;
    const text = isRefused ? `the server did not accept a WebSocket at ${this.#endpoint.split("?")[0]}` : reason;
    // The codes of the server itself, such as a token that it refuses.
    if (code >= 4000) this.#complaints.add(`closed with code ${code}: ${reason || "no reason given"}`);
    this.#lost({ code, reason: text });
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

  /** The network or the tab is back: connect now instead of waiting. */
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

  #send(frame) {
    if (this.#status.status === "open") this.#socket.send(frame);
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
    if (type === "error") this.#complaints.add(value.message);
    for (const callback of this.#listeners[type]) call(callback, value);
  }
}
