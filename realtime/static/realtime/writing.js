/** Writes of a page to a collection: shown at once, and true when the stream shows them. */

import { Receipts, receiptsIn } from "./receipts.js";

// How long a row is kept back that may be what an unanswered insert made, how long an echo may take
// once the server has answered and the stream is live, and how long more of its transaction may.
const WAITS_MS = { sending: 5000, taken: 5000, echoed: 100 };

/**
 * A write of this page. Made by `insert`, `update` and `delete` of a collection.
 *
 * - "sending": shown, and not answered.
 * - "taken": the server has answered that it is done; the stream has not shown it.
 * - "confirmed": what the collection shows is the server's.
 * - "refused": it is shown no more.
 */
export class Write {
  #layer;
  #status = "sending";
  #isAsked = false;
  #ends = {};
  #taken;
  #confirmed;

  /** @private Use `insert`, `update` or `delete` of a collection. */
  constructor(layer) {
    this.#layer = layer;
    this.#taken = new Promise((resolve, reject) => (this.#ends.taken = { resolve, reject }));
    this.#confirmed = new Promise((resolve, reject) => (this.#ends.confirmed = { resolve, reject }));
    // One of the two may be all that a page asks for. What is refused and asked for by nobody is told.
    this.#taken.catch(() => {});
    this.#confirmed.catch(() => {});
  }

  /** @returns {any} The key of the row: of one whose key the server makes, that as soon as it is known. */
  get key() {
    return this.#layer.key;
  }

  /** @returns {"sending"|"taken"|"confirmed"|"refused"} */
  get status() {
    return this.#status;
  }

  /** @returns {string[]} The receipts of its transactions, once the server has given them. */
  get receipts() {
    return [...this.#layer.receipts];
  }

  /** @returns {Promise<any>} What the function that wrote gave back; rejected when it is refused. */
  get taken() {
    this.#isAsked = true;
    return this.#taken;
  }

  /**
   * @returns {Promise<boolean>} True once the stream has shown the write, false when it was taken and
   *   the stream shows nothing of it: the row is not in the collection, or nothing changed. Rejected
   *   with the error when it is refused.
   */
  get confirmed() {
    this.#isAsked = true;
    return this.#confirmed;
  }

  /** @private */
  _taken(result) {
    if (this.#status === "sending") this.#status = "taken";
    this.#ends.taken.resolve(result);
  }

  /** @private */
  _confirmed(isShown) {
    this.#status = "confirmed";
    this.#ends.confirmed.resolve(isShown);
  }

  /**
   * @private
   * @returns {boolean} Whether somebody asked.
   */
  _refused(error) {
    this.#status = "refused";
    this.#ends.taken.reject(error);
    this.#ends.confirmed.reject(error);
    return this.#isAsked;
  }
}

/** The writes of one collection. Owns their requests and their time; the row set owns what is shown. */
export class Writing {
  #rows;
  #table;
  #writes;
  #flush;
  #complain;
  #receipts = new Receipts();
  #open = new Map();
  #timers = new Map();
  #isClosed = false;

  /**
   * @param {import("./rowset.js").RowSet} rows
   * @param {string} table
   * @param {?import("./rest.js").Writes} writes
   * @param {() => void} flush Shows what the row set has.
   * @param {(text: string) => void} complain
   */
  constructor(rows, table, writes, flush, complain) {
    this.#rows = rows;
    this.#table = table;
    this.#writes = writes;
    this.#flush = flush;
    this.#complain = complain;
  }

  /**
   * Shows what is written, and writes it.
   *
   * @param {"insert"|"update"|"delete"} kind
   * @param {any} key
   * @param {object} cells
   * @param {?((...what: any[]) => any)} send
   * @returns {Write}
   * @throws {TypeError} when nothing says how to write.
   */
  write(kind, key, cells, send) {
    const how = send ?? this.#writes?.[kind];
    if (typeof how !== "function") {
      throw new TypeError(`${this.#table}: ${kind} takes a function that writes, or the option "writes"`);
    }
    const layer = this.#rows.write(kind, key, cells);
    const write = new Write(layer);
    this.#open.set(layer, write);
    this.#flush();
    this.#send(layer, write, () => (kind === "insert" ? how(cells) : kind === "update" ? how(key, cells) : how(key)));
    return write;
  }

  async #send(layer, write, how) {
    let result;
    let receipts;
    try {
      result = await how();
      receipts = receiptsIn(result);
    } catch (error) {
      await null; // one that failed at once is not handed out yet
      this.#refuse(layer, write, error);
      return;
    }
    write._taken(result);
    this.#rows.taken(layer, receipts);
    if (this.#isClosed) this.close();
    else this.#flush();
  }

  #refuse(layer, write, error) {
    this.#rows.refused(layer);
    this.#open.delete(layer);
    this.#flush();
    if (!write._refused(error)) this.#complain(`what was written is taken back: ${error?.message ?? error}`);
  }

  /** A change came, and is not shown yet. */
  heard(tx) {
    if (tx !== null) this.#receipts.note(tx);
  }

  /** A snapshot begins. */
  cover() {
    this.#receipts.cover();
  }

  /** @returns {Promise<boolean>} As `Receipts.wait`. */
  wait(tx, timeout) {
    return this.#isClosed ? Promise.resolve(false) : this.#receipts.wait(tx, timeout);
  }

  /**
   * After the listeners were told of it.
   *
   * @param {{isHeld: boolean, isSnapshot: boolean, isLive: boolean}} what Whether changes wait to be
   *   shown, whether a snapshot is shown, and whether the collection is live.
   */
  shown({ isHeld, isSnapshot, isLive }) {
    for (const [layer, outcome] of this.#rows.takeGone()) {
      this.#open.get(layer)?._confirmed(outcome === "shown");
      this.#open.delete(layer);
    }
    if (!isHeld) this.#receipts.show(isSnapshot);
    this.#time(isLive);
  }

  /** Nothing comes any more: what was taken is as true as it gets here. */
  close() {
    this.#isClosed = true;
    this.#receipts.close();
    for (const layer of this.#rows.waiting) this.#rows.giveUp(layer);
    this.shown({ isHeld: true, isSnapshot: false, isLive: false });
  }

  /** What waits has its time, while the stream could show it. */
  #time(isLive) {
    const waiting = this.#isClosed || !isLive ? [] : this.#rows.waiting;
    const stages = new Map(waiting.map((layer) => [layer, layer.stage]));
    for (const [layer, { stage, timer }] of this.#timers) {
      if (stages.get(layer) === stage) continue;
      clearTimeout(timer);
      this.#timers.delete(layer);
    }
    for (const [layer, stage] of stages) {
      if (this.#timers.has(layer)) continue;
      const giveUp = () => {
        this.#rows.giveUp(layer);
        this.#flush();
      };
      this.#timers.set(layer, { stage, timer: setTimeout(giveUp, WAITS_MS[stage]) });
    }
  }
}
