/** The rows of a table that somebody may see and a filter lets through, kept exact by a stream. */

import { call } from "./callbacks.js";
import { Complaints } from "./complaints.js";
import { RowSet } from "./rowset.js";
import { Writing } from "./writing.js";

/**
 * @typedef {object} CollectionOptions
 * @property {string} [filter] As in a binding of changes: "status=eq.open". Default: every row.
 * @property {string} [schema] Default "public".
 * @property {string[]} [select] The columns to get; the primary key always comes.
 * @property {string|string[]} [key] The columns of the primary key. Default: those that the server
 *   names, and "id" until then.
 * @property {string|string[]|((a: object, b: object) => number)} [order] A column, several, each
 *   with "-" before it to begin with the largest, or a comparison of two rows. NULL comes last, and
 *   equals in the order of their keys. Default: as the rows came.
 * @property {object[]} [initial] Rows that the page has already, shown until the server has sent
 *   its own.
 * @property {(change: object) => void} [onChange] Called with each change of the stream as it arrives,
 *   before it is shown: for what a change says beside its rows, such as `commit_timestamp`. Rows of
 *   a snapshot are no changes.
 * @property {import("./rest.js").Writes} [writes] How `insert`, `update` and `delete` write where a call
 *   says nothing else: `rest("/api/tasks/")`.
 * @property {string} [topic] Name of the channel, which is the collection's alone. Default: a name
 *   made of the table's.
 * @property {boolean} [private] Whether the topic's policies are asked.
 */

/**
 * The status of a collection, in the words of a channel:
 *
 * - "joining": no rows come yet; the rows that are here are those of before.
 * - "catching up": the server sends the rows, or what was missed; it is shown when it is complete.
 * - "live": the rows are exactly those of the server, and changes flow.
 * - "errored": changes do not flow; `error` says why. What ends by itself is tried again.
 * - "closed": by `close`, or by the server until a new token or connection.
 *
 * @typedef {"joining"|"catching up"|"live"|"errored"|"closed"} CollectionStatus
 */

/**
 * What a listener is told, once for all that came together.
 *
 * @typedef {object} CollectionBatch
 * @property {{key: any, before: object|undefined, after: object|undefined, own?: true}[]} changes The rows that
 *   came (no `before`), changed, or went (no `after`). None where only the status is another. What
 *   this page wrote has `own`, when it is shown and when the server's differs from it.
 * @property {boolean} snapshot Whether they are the difference to a set of rows that the server sent
 *   anew, rather than changes as they were committed.
 * @property {CollectionStatus} status
 */

/**
 * A keyed set of rows. Made by `client.collection`, or by `rows` for supabase-js.
 *
 * Everything that can be read changes at once, just before the listeners are told.
 */
export class Collection {
  #table;
  #complaints;
  #rows;
  #listeners = new Set();
  #shown = { status: "joining", error: null, truncated: false };
  #next = { ...this.#shown };
  #isFresh = false;
  #timer = null;
  #fault = null;
  #onChange;
  #writing;
  #isTelling = false;
  #close;

  /**
   * @private Use `client.collection`, or `rows`.
   * @param {string} table
   * @param {CollectionOptions} options
   * @param {(feed: Feed) => (() => void)} open Begins the stream, tells it to the feed, and returns
   *   what ends it.
   */
  constructor(table, options, open) {
    this.#table = table;
    this.#complaints = new Complaints(table);
    this.#rows = new RowSet(options);
    this.#onChange = options.onChange ?? null;
    this.#writing = new Writing(
      this.#rows, table, options.writes ?? null, () => this.#flushNow(), (text) => this.#complaints.add(text),
    );
    // These work without their object, so that they can be handed on: useSyncExternalStore(…).
    this.subscribe = this.subscribe.bind(this);
    this.getRows = this.getRows.bind(this);
    this.getStatus = this.getStatus.bind(this);
    this.#close = open({
      status: (status, error = null) => this.#setStatus(status, error),
      begin: (key) => this.#begin(key),
      change: (change) => this.#changed(change),
      end: (isComplete) => this.#end(isComplete),
    });
  }

  /** @returns {string} */
  get table() {
    return this.#table;
  }

  /** @returns {CollectionStatus} */
  get status() {
    return this.#shown.status;
  }

  /** @returns {?Error} Why the status is "errored", or "closed" by the server; else null. */
  get error() {
    return this.#shown.error;
  }

  /** @returns {boolean} Whether the server sent only a part of the rows, because they are too many. */
  get truncated() {
    return this.#shown.truncated;
  }

  /** @returns {number} How many rows there are. */
  get size() {
    return this.#rows.size;
  }

  /**
   * @returns {readonly object[]} The rows in order. The same array until rows change, and a row that
   *   did not change is the same object. Do not change them.
   */
  get rows() {
    return this.#rows.rows;
  }

  /**
   * @param {any} key The primary key; of several columns an array in the order of the key, or
   *   an object that has them. A number and its text are the same key.
   * @returns {object|undefined} The row.
   */
  get(key) {
    return this.#rows.get(key);
  }

  /** @returns {boolean} Whether there is a row of this key. */
  has(key) {
    return this.#rows.get(key) !== undefined;
  }

  /** The keys in the order of the rows. */
  keys() {
    return this.#rows.entries().map(([key]) => key).values();
  }

  /** Pairs of key and row, in order. */
  entries() {
    return this.#rows.entries().values();
  }

  /** The rows, in order. */
  [Symbol.iterator]() {
    return this.#rows.rows.values();
  }

  /** The same as `rows`, as a function that can be handed on. */
  getRows() {
    return this.#rows.rows;
  }

  /** The same as `status`, as a function that can be handed on. */
  getStatus() {
    return this.#shown.status;
  }

  /**
   * Adds a listener, called after each batch of changes and each new status.
   *
   * @param {(batch: CollectionBatch) => void} listener
   * @returns {() => void} Removes it.
   */
  subscribe(listener) {
    // A listener that is added twice is told twice, and each is removed on its own.
    const added = (batch) => listener(batch);
    this.#listeners.add(added);
    return () => this.#listeners.delete(added);
  }

  /**
   * Inserts a row: it is shown at once, and written. When the stream brings what the server made of it,
   * that takes its place in one change; when the server refuses, it goes.
   *
   * @param {object} row Without a key, if the server makes it: until it is known the row has one that
   *   stands in for it.
   * @param {(row: object) => any} [write] Writes it, and returns a Response, a receipt (the header
   *   `Rowcast-Transaction`), or a promise of either; anything else is no receipt. Rejected, or a
   *   Response that is not `ok`, it is refused. Default: the option `writes`.
   * @returns {import("./writing.js").Write}
   * @throws {TypeError} when nothing says how to write.
   */
  insert(row, write = null) {
    return this.#writing.write("insert", undefined, row, write);
  }

  /**
   * Changes a row, in the same way. Changes that others make to it meanwhile are shown, except in the
   * columns that this one writes.
   *
   * @param {any} key As of `get`.
   * @param {object} changes The columns that change, with their values.
   * @param {(key: any, changes: object) => any} [write]
   * @returns {import("./writing.js").Write}
   * @throws {TypeError} when nothing says how to write, or the key would change.
   */
  update(key, changes, write = null) {
    return this.#writing.write("update", key, changes, write);
  }

  /**
   * Deletes a row, in the same way.
   *
   * @param {any} key As of `get`.
   * @param {(key: any) => any} [write]
   * @returns {import("./writing.js").Write}
   * @throws {TypeError} when nothing says how to write.
   */
  delete(key, write = null) {
    return this.#writing.write("delete", key, {}, write);
  }

  /**
   * Whether a row is shown as this page wrote it, and not as the server has it.
   *
   * @param {any} key As of `get`.
   * @returns {boolean}
   */
  isPending(key) {
    return this.#rows.isWritten(key);
  }

  /**
   * Waits for a transaction that was written by other means: for adapters of other stores.
   *
   * @param {string} tx A receipt, or several as the header has them.
   * @param {number} [timeout] Milliseconds.
   * @returns {Promise<boolean>} True once the collection shows a change of it, or a snapshot that
   *   began after this call; false when none came in time: the transaction changed nothing that
   *   the collection shows.
   */
  awaitTx(tx, timeout = 5000) {
    return this.#writing.wait(tx, timeout);
  }

  /** Ends the stream for good. The rows stay as they are, and nobody is told of anything more. */
  close() {
    if (this.#shown.status === "closed" && this.#close === null) return;
    const end = this.#close;
    this.#close = null;
    clearTimeout(this.#timer);
    this.#listeners.clear();
    this.#shown = { ...this.#shown, status: "closed", error: null };
    this.#writing.close();
    end?.();
  }

  #setStatus(status, error) {
    // Rows that cannot be told apart are not "live", whatever the channel is, and also after a rejoin:
    // one that resumes brings no other rows.
    if (this.#fault && status !== "closed") return;
    this.#next.status = status;
    this.#next.error = error;
    // "live" comes with the rows that make it true, and any other at once.
    if (status === "live" || status === this.#shown.status) this.#schedule();
    else if (this.#close !== null) this.#flush();
  }

  #begin(key = null) {
    this.#fault = null;
    this.#rows.begin(key);
    this.#writing.cover();
  }

  #changed(change) {
    const { eventType, new: row, old, tx = null } = change;
    if (this.#onChange && !this.#rows.isReplacing) call(this.#onChange, change);
    this.#writing.heard(tx);
    try {
      if (eventType === "DELETE") this.#rows.drop(old, { tx });
      else this.#rows.put(row, { tx, isInsert: eventType === "INSERT" });
    } catch (error) {
      this.#fail(error);
    }
    this.#schedule();
  }

  #end(isComplete) {
    if (this.#fault) return;
    if (!isComplete) this.#complaints.add("the server sent only some of the rows: filter for fewer");
    this.#next.truncated = !isComplete;
    this.#isFresh = true;
    this.#rows.end();
    this.#schedule();
  }

  #fail(error) {
    if (this.#fault) return;
    this.#fault = error;
    this.#complaints.add(error.message);
    this.#next.status = "errored";
    this.#next.error = error;
  }

  #checkOrder() {
    for (const name of this.#rows.unknownInOrder) this.#complaints.add(`the order names ${name}, and no row has such a column`);
  }

  /** What comes in one go is one batch. */
  #schedule() {
    if (this.#close === null) return;
    this.#timer ??= setTimeout(() => this.#flush(), 0);
  }

  /** What the page wrote is shown at once, unless listeners are being told: then after that. */
  #flushNow() {
    if (this.#close === null) return;
    if (this.#isTelling) this.#schedule();
    else this.#flush();
  }

  #flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const before = this.#shown;
    // A replay is shown when it is complete, too.
    const isHeld = this.#next.status === "catching up" || this.#rows.isReplacing || this.#fault !== null;
    const changes = isHeld ? this.#rows.overlay() : this.#rows.commit();
    if (this.#isFresh && !isHeld) this.#checkOrder();
    this.#shown = { ...this.#next, truncated: isHeld ? before.truncated : this.#next.truncated };
    const { status, error, truncated } = this.#shown;
    const isNews = status !== before.status || error !== before.error || truncated !== before.truncated;
    const isSnapshot = this.#isFresh && !isHeld;
    if (!isHeld) this.#isFresh = false;
    if (isNews || changes.length > 0) this.#tell({ changes, snapshot: isSnapshot, status });
    if (this.#close !== null) this.#writing.shown({ isHeld, isSnapshot, isLive: status === "live" });
  }

  #tell(batch) {
    this.#isTelling = true;
    for (const listener of [...this.#listeners]) {
      // One that is called before may have removed it.
      if (this.#listeners.has(listener)) call(listener, batch);
    }
    this.#isTelling = false;
  }
}

/**
 * What a stream tells a collection.
 *
 * @typedef {object} Feed
 * @property {(status: CollectionStatus, error?: ?Error) => void} status
 * @property {(key?: ?string[]) => void} begin A snapshot begins; the columns of the table's key, where
 *   the server names them.
 * @property {(change: {eventType: string, new: object, old: object, tx?: ?string}) => void} change A row
 *   of a snapshot, or a change of a live set.
 * @property {(isComplete: boolean) => void} end The snapshot ends.
 */
