/** A channel: one topic on a connection. Joins it, hands on what arrives, and sends. */

import { call, report } from "./callbacks.js";
import { changeOf } from "./change.js";
import { Complaints } from "./complaints.js";
import { encodeBytes, encodeFrame, isBytes } from "./frames.js";
import { equal, isObject } from "./json.js";
import { Presence } from "./presence.js";
import { Progress } from "./progress.js";
import { randomKey } from "./random_key.js";
import { reasonOf, Replies, REPLY_TIMEOUT_MS } from "./replies.js";
import { Silence, SILENCE_MS } from "./silence.js";
import { Stored } from "./stored.js";
import { Tracking } from "./tracking.js";

/**
 * @typedef {object} ChannelOptions
 * @property {boolean} [private] Asks the topic's policies who may do what. A public topic of the
 *   same name is separate.
 * @property {boolean} [self] Also hands back what this page broadcasts.
 * @property {boolean} [ack] Asks for a receipt of each broadcast: what `send` returns then waits.
 * @property {{since: number|Date, limit?: number}} [replay] Stored broadcasts to hand out first, of
 *   a private topic: the newest `limit` (at most 25) since then, in milliseconds since 1970. They
 *   come with `meta.replayed`. A rejoin asks again, and a page gets each `meta.id` once.
 * @property {string} [presenceKey] The presence key of this page; several pages of one person can share
 *   it. Default: a random key.
 * @property {boolean} [resume] `false` begins every rejoin at the head and does not report what
 *   was missed: for pages that read their rows again whenever the channel is "live".
 */

/**
 * The status of a channel:
 *
 * - "idle": not subscribed yet.
 * - "joining": the join is sent, or will be as soon as there is a connection.
 * - "catching up": joined; the changes since the cursor, or a snapshot, are on their way.
 * - "live": joined, and the server has confirmed it; changes arrive as they are committed.
 * - "resynced": joined, and changes arrive, but earlier ones are lost. It lasts until the result of
 *   `onResync` has settled; then the channel is "live".
 * - "errored": not joined, and the channel tries again by itself; or joined, and the server refuses
 *   some of its changes: the error says why, and so does the console. It lasts until a rejoin. Or
 *   joined, and the server has owed rows for a minute without sending any: until something comes.
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
  // Whether changes are lost with the next join, whatever it asks for.
  #beginsAnew = false;
  #refetches = 0;
  #refetching = null;
  #onStatus = () => {};
  #onResync = null;
  #timer = null;
  // Whether the server has said that changes flow, and what it has refused, if anything.
  #flows = false;
  #problem = null;
  #complaints;
  // While the server owes something: a confirmation, a replay, a snapshot.
  #silence = new Silence(() => this.#fellSilent());
  #isSilent = false;
  #replies = new Replies();
  #stored;
  #presenceKey;
  #presence = new Presence();
  #tracking = new Tracking(
    (payload) => this.#ask("presence", payload),
    () => this.#report(this.#presence.giveUp()),
  );

  /** @private Use `client.channel`. */
  constructor(topic, options, link) {
    this.#topic = topic;
    this.#options = options;
    this.#link = link;
    this.#complaints = new Complaints(topic);
    this.#stored = new Stored(options);
    this.#presenceKey = String(options.presenceKey ?? "") || randomKey();
  }

  /** @returns {boolean} Whether the topic's policies are asked. */
  get isPrivate() {
    return Boolean(this.#options.private);
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
   * Registers a callback, before or after `subscribe`; "postgres_changes" and the first for
   * "presence" only before.
   *
   * - "postgres_changes", with `{event, schema, table, filter, select}` (`event` is "INSERT",
   *   "UPDATE", "DELETE" or "*"; further keys such as `snapshot` and `live` reach the server too,
   *   `since` until the channel has a cursor): gets a
   *   {@link import("./change.js").Change}.
   * - "broadcast", with `{event}` (a name or "*"): gets `{type, event, payload, meta?}`; a payload
   *   of bytes is an ArrayBuffer. On a private topic `meta.user_id` is the user who sent it, as the
   *   server knows it: a page cannot set it.
   * - "presence", with `{event}` ("sync", "join", "leave" or "*"): gets a
   *   {@link import("./presence.js").PresenceReport}. "sync" comes after every change of
   *   `presenceState()`; "join" and "leave" say who came and went, after a lost connection too.
   * - "system" and any other event of the wire, with `{}`: gets its payload.
   *
   * @param {string} type
   * @param {Record<string, any>} config
   * @param {(value: any) => void} callback
   * @returns {this}
   * @throws {Error} when what is part of the join is asked for after `subscribe`.
   */
  on(type, config, callback) {
    const isJoinPart = type === "postgres_changes" || (type === "presence" && !this.#wantsPresence);
    if (isJoinPart && this.#state !== "idle") {
      const what = type === "presence" ? "presence is" : "changes are";
      throw new Error(`${what} part of the join: call on() before subscribe()`);
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
  subscribe(callback = () => {}, { since = null, onResync = null } = {}) {
    if (this.#state !== "idle") throw new Error(`already ${this.#status}: subscribe only once`);
    this.#onStatus = callback;
    this.#onResync = onResync;
    this.#since = since;
    this.#state = "waiting";
    this.#setStatus("joining");
    this.#join();
    return this;
  }

  /** Leaves. Nothing arrives after this; `client.channel` then makes a new one of the name. */
  unsubscribe() {
    if (this.#state === "left") return;
    clearTimeout(this.#timer);
    this.#silence.stop();
    if (this.#state === "joined" || this.#state === "joining") this.#push("phx_leave", {});
    this.#state = "left";
    this.#tracking.end();
    this.#replies.end("unsubscribed");
    this.#link.forget();
    this.#setStatus("closed");
  }

  /**
   * Sends a broadcast to the others of this topic.
   *
   * @param {string} event
   * @param {any} [payload] Anything JSON; or bytes, as an ArrayBuffer or a view of one.
   * @returns {Promise<object>} With the option `ack` resolved with the server's answer when it has
   *   taken the broadcast, else when that is sent. Rejected with the server's reason, when the
   *   channel is not joined, and when the connection is lost before the receipt came: others may
   *   then have it or not.
   */
  send(event, payload = {}) {
    if (this.#state !== "joined") return Promise.reject(this.#notJoined());
    const ref = this.#link.ref();
    try {
      this.#link.send(
        isBytes(payload)
          ? encodeBytes(this.#joinRef, ref, this.#topic, event, payload)
          : encodeFrame(this.#joinRef, ref, this.#topic, "broadcast", { type: "broadcast", event, payload }),
      );
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#options.ack ? this.#replies.to(ref) : Promise.resolve({});
  }

  /**
   * Shows this page among those who are there, as `meta`, from now on: as soon as the channel is
   * joined, and again after every lost connection.
   *
   * @param {object} meta An object of JSON. It takes the place of what was tracked before.
   * @returns {Promise<void>} Resolved when the server has it, however many connections that takes;
   *   rejected with its reason when it refuses, and then what was tracked before stays.
   */
  track(meta) {
    if (!isObject(meta)) return Promise.reject(new TypeError("what is tracked must be an object"));
    try {
      return this.#show(JSON.parse(JSON.stringify(meta)));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Shows this page no longer.
   *
   * @returns {Promise<void>} Resolved when the server has it.
   */
  untrack() {
    return this.#show(null);
  }

  /**
   * Who is there, as last heard. An object without a prototype, safe with any key.
   *
   * @returns {Record<string, import("./presence.js").Meta[]>} By key, one meta for each connection.
   */
  presenceState() {
    return this.#presence.state;
  }

  /** @private */
  _connected() {
    if (this.#state === "waiting" || this.#state === "shut") this.#join();
  }

  /** @private */
  _disconnected(reason) {
    const wasJoining = this.#state === "joined" || this.#state === "joining";
    // Waiting for a connection that does not come about is no "joining" either.
    if (!wasJoining && !(this.#state === "waiting" && this.#status === "joining")) return;
    clearTimeout(this.#timer);
    this.#state = "waiting";
    this.#replies.end("the connection was lost");
    this.#setStatus("errored", new Error(reason || "connection lost"));
  }

  /** @private */
  _heard(head) {
    if (this.#state === "joined") this.#progress.head(head);
  }

  /** @private */
  _tokenChanged() {
    const token = this.#link.token();
    if (this.#state === "joined" && token !== null) {
      this.#joinToken = token;
      this.#progress.tokenSent();
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
    if (this.#state === "joined") this.#spoke();
    const ours = ref === null || ref === this.#joinRef;
    if (event === "phx_reply") {
      if (ref !== this.#joinRef) this.#replies.came(ref, payload);
      else if (this.#state === "joining") this.#answered(payload);
    } else if (event === "phx_error") {
      if (ours) this.#retry(payload.reason ?? this.#problem ?? "the channel failed");
    } else if (event === "phx_close") {
      if (ours) this.#shut();
    } else if (event === "postgres_changes") {
      this.#changed(payload);
    } else {
      if (event === "system" && this.#state === "joined") this.#system(payload);
      else if (event === "presence_state") this.#report(this.#presence.replace(payload));
      else if (event === "presence_diff") this.#differs(payload);
      else if (event === "broadcast" && this.#stored.isRepeated(payload.meta)) return;
      this.#hand(event, payload);
    }
  }

  /** Calls the page's callbacks for a kind of event and, where they name one, its name. */
  #hand(type, payload) {
    for (const { type: wanted, config, callback } of this.#bindings) {
      if (wanted !== type) continue;
      const name = type === "broadcast" || type === "presence" ? (config?.event ?? "*") : "*";
      if (name === "*" || name === payload.event) call(callback, payload);
    }
  }

  #join() {
    clearTimeout(this.#timer);
    if (!this.#link.isOpen()) return;
    this.#state = "joining";
    this.#problem = null;
    this.#joinRef = this.#link.ref();
    this.#joinToken = this.#link.token();
    if (this.#progress === null || this.#options.resume === false) {
      const configs = this.#changeBindings().map((binding) => binding.config);
      this.#progress = new Progress(configs, this.#wasJoined ? null : this.#since);
    }
    this.#asked = this.#progress.ask();
    const config = {
      broadcast: { self: Boolean(this.#options.self), ack: Boolean(this.#options.ack) },
      presence: { key: this.#presenceKey, enabled: this.#wantsPresence },
      postgres_changes: this.#asked,
      private: this.isPrivate,
    };
    if (this.#stored.replay) config.broadcast.replay = this.#stored.replay;
    const meta = this.#tracking.meta;
    this.#presence.begin(meta && { key: this.#presenceKey, meta });
    const payload = { config };
    if (this.#joinToken !== null) payload.access_token = this.#joinToken;
    this.#link.send(encodeFrame(this.#joinRef, this.#joinRef, this.#topic, "phx_join", payload));
    this.#timer = setTimeout(() => this.#timedOut(), REPLY_TIMEOUT_MS);
    if (this.#status !== "joining") this.#setStatus("joining");
  }

  #answered({ status, response }) {
    clearTimeout(this.#timer);
    if (status !== "ok") {
      const reason = reasonOf(response) ?? "the join was refused";
      this.#complaints.add(response?.hint ? `${reason} (${response.hint})` : reason);
      this.#link.refused();
      this.#retry(reason);
      return;
    }
    const granted = response?.postgres_changes ?? [];
    const asked = this.#changeBindings();
    if (granted.length !== asked.length) {
      this.#push("phx_leave", {});
      this.#retry("the server granted other changes than were asked for");
      return;
    }
    if (this.#progress.isOfAnother(this.#asked, response ?? {})) {
      this.#beginAnew();
      return;
    }
    asked.forEach((binding, index) => (binding.id = granted[index].id));
    this.#state = "joined";
    this.#flows = asked.length === 0;
    this.#isSilent = false;
    if (!this.#flows) this.#silence.restart();
    this.#progress.joined(this.#asked, response ?? {});
    this.#link.backoff.reset();
    this.#link.settled();
    if (this.#link.token() !== this.#joinToken) this._tokenChanged();
    this.#tracking.again();
    // Joined again without a position to resume at: changes in between are lost.
    const isGap =
      this.#beginsAnew ||
      (this.#wasJoined && asked.length > 0 && this.#asked.every(({ since }) => since == null));
    this.#wasJoined = true;
    this.#beginsAnew = false;
    if (isGap && this.#options.resume !== false) this.#resync();
    else this.#settle();
  }

  /** Whether rows stay on the page that only another user may see: of a live set they are taken back. */
  #keepsRows() {
    return this.#changeBindings().some(({ config }) => !config.live);
  }

  /** The position is of no use: joins without it, and the page reads its rows again. */
  #beginAnew() {
    this.#push("phx_leave", {});
    this.#progress = null;
    this.#beginsAnew = true;
    this.#join();
  }

  /** A message of the server about the channel: a replay, a snapshot, an error. */
  #system({ extension, message, status, seq, hint, subject }) {
    if (status === "error") {
      this.#refusal(hint ? `${message} (${hint})` : String(message), extension);
    } else if (extension === "postgres_changes") {
      if (hint) this.#complaints.add(hint);
      if (subject !== undefined && this.#progress.tokenTaken(subject) && this.#keepsRows()) {
        this.#replies.end("the channel joins again, as another user");
        this.#beginAnew();
        return;
      }
      this.#flows = true;
      this.#settle();
    } else if (extension === "resume" && message === "resync required") {
      this.#progress.resynced(seq);
      this.#resync();
    } else if (extension === "snapshot" && status === "ok") {
      if (this.#progress.snapshotCame()) this.#resync();
      if (message === "snapshot begins") return;
      this.#progress.ended("snapshot", seq);
      this.#settle();
    } else if (extension === "resume" && status === "ok") {
      if (message !== "caught up") return;
      this.#progress.ended("replay", seq);
      this.#settle();
    }
  }

  /** The server refuses something of this channel, which stays joined unless a phx_error follows. */
  #refusal(text, extension) {
    this.#problem = text;
    this.#complaints.add(text);
    // What ends the channel comes as an error of the whole: its phx_error is on its way.
    if (extension !== "system") this.#setStatus("errored", new Error(text));
  }

  /** Something of this channel came. */
  #spoke() {
    if (!this.#owes) return;
    this.#silence.restart();
    if (!this.#isSilent) return;
    this.#isSilent = false;
    if (this.#problem === null) this.#setStatus(this.#flows ? "catching up" : "joining");
  }

  #fellSilent() {
    if (this.#state !== "joined" || this.#problem !== null || !this.#owes) return;
    this.#isSilent = true;
    const text = `the server has sent nothing of what it owes for ${SILENCE_MS / 1000} s`;
    this.#complaints.add(text);
    this.#setStatus("errored", new Error(text));
  }

  /** Whether the server is to confirm the changes, or to complete a replay or a snapshot. */
  get #owes() {
    return this.#changeBindings().length > 0 && (!this.#flows || this.#progress.pending);
  }

  /** The page has to read its rows again. The channel is not "live" until it has. */
  #resync() {
    const refetch = (this.#refetches += 1);
    this.#refetching = refetch;
    this.#setStatus("resynced");
    if (this.#onResync === null && this.#options.resume !== false) {
      this.#complaints.add("changes are lost, and there is no onResync to read the rows again");
    }
    let done;
    try {
      done = this.#onResync?.();
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

  /** Joined: sets the status that is true now. */
  #settle() {
    const status = this.#progress.pending ? "catching up"
      : this.#refetching !== null ? "resynced"
      : "live";
    if (this.#owes) this.#silence.restart();
    else this.#silence.stop();
    // Nothing is called live that does not flow, or of which the server has refused a part.
    if (this.#problem !== null || (status === "live" && !this.#flows)) return;
    if (status !== this.#status) this.#setStatus(status);
  }

  #changed({ ids, data }) {
    if (this.#state !== "joined") return;
    const change = changeOf(ids, data);
    if (change.snapshot && this.#progress.snapshotCame()) this.#resync();
    this.#progress.passed(data.seq);
    this.#changeBindings().forEach(({ id, config, callback }, index) => {
      if (!ids.includes(id)) return;
      if (![undefined, "*", change.eventType].includes(config.event)) return;
      if (this.#progress.isNew(index, data)) call(callback, change);
    });
  }

  get #wantsPresence() {
    return (
      this.#options.presenceKey !== undefined ||
      this.#tracking.meta !== null ||
      this.#bindings.some(({ type }) => type === "presence")
    );
  }

  #show(meta) {
    if (this.#state === "left") return Promise.reject(this.#notJoined());
    if (!equal(meta, this.#tracking.meta)) this.#report(this.#presence.giveUp());
    return this.#tracking.set(meta, this.#state === "joined");
  }

  #differs(payload) {
    if (!this.#wantsPresence) return;
    this.#report(this.#presence.change(payload));
    // A rejoin brings a new state, which covers the diffs.
    if (this.#presence.isOverfull) this.#retry("the server did not say who is there");
  }

  #report(reports) {
    for (const one of reports) this.#hand("presence", one);
  }

  #notJoined() {
    return new Error(`not joined but ${this.#status}`);
  }

  #timedOut() {
    this.#push("phx_leave", {}); // the server may have joined us after all
    this.#retry("no reply to the join");
  }

  #retry(message) {
    clearTimeout(this.#timer);
    this.#state = "waiting";
    this.#replies.end(message);
    this.#timer = setTimeout(() => this.#join(), this.#link.backoff.next());
    this.#setStatus("errored", new Error(message));
  }

  #shut() {
    clearTimeout(this.#timer);
    this.#state = "shut";
    this.#replies.end("the server closed the channel");
    this.#setStatus("closed", new Error("the server closed the channel"));
    this.#link.refused();
  }

  /** @returns {string} The ref under which an answer would come. */
  #push(event, payload) {
    const ref = this.#link.ref();
    this.#link.send(encodeFrame(this.#joinRef, ref, this.#topic, event, payload));
    return ref;
  }

  #ask(event, payload) {
    return this.#replies.to(this.#push(event, payload));
  }

  #changeBindings() {
    return this.#bindings.filter((binding) => binding.type === "postgres_changes");
  }

  #setStatus(status, error) {
    if (this.#state !== "joined") this.#silence.stop();
    this.#status = status;
    call(this.#onStatus, status, error);
  }
}
