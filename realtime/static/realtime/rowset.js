/**
 * The rows of a collection: keyed, in order, and changed in batches. Pure: it takes what the stream
 * says of rows, and answers with what a page would see change.
 *
 * What the stream says is noted and shown by `commit`. From `begin` to `end` it is a snapshot, which
 * replaces the rows as a whole: until `end` those of before stay, and a snapshot that is never
 * completed changes nothing. So what was deleted or hidden meanwhile vanishes, and a page is never
 * shown an empty set in between.
 *
 * What the page itself writes lies over that as a layer, shown by `commit` or by `overlay`.
 */

import { equal } from "./json.js";
import { Layers } from "./layers.js";
import { randomKey } from "./random_key.js";

// Keys that stand in for those that the server makes: larger than any that a table has, so that new
// rows stand with the newest.
const FIRST_MADE = Number.MAX_SAFE_INTEGER - 1e9;

/** A row has no key, or two have the same: the option `key` is not the table's primary key. */
export class KeyError extends Error {}

export class RowSet {
  #columns;
  #isKeyGiven;
  #compare;
  #ordering;
  // Entries by the text of their key. An entry is never changed, only replaced.
  #entries = new Map();
  #noted = new Map();
  #phase = "changes";
  #layers = new Layers((text) => this.#entries.get(text) ?? null);
  #made = FIRST_MADE;
  #sorted = [];
  // Entries that are not in #sorted yet, by the text of their key: as many as there are rows at most,
  // however long nobody reads them in order.
  #unsorted = new Map();
  #rows = null;

  /**
   * @param {object} [options]
   * @param {string|string[]} [options.key] The columns of the primary key. Without them those that
   *   `begin` names, and until then "id".
   * @param {string|string[]|((a: object, b: object) => number)} [options.order] As `orderOf` takes it.
   * @param {object[]} [options.initial] Rows to begin with.
   * @throws {KeyError} when a row to begin with lacks its key.
   */
  constructor({ key = null, order = null, initial = [] } = {}) {
    this.#isKeyGiven = key !== null;
    this.#columns = [key ?? "id"].flat();
    this.#compare = orderOf(order);
    this.#ordering = typeof order === "function" ? [] : columnsOf(order).map(({ name }) => name);
    for (const row of initial) this.#note(row);
    this.commit();
  }

  get size() {
    return this.#entries.size;
  }

  /** Whether a snapshot has begun and not ended. */
  get isReplacing() {
    return this.#phase === "snapshot";
  }

  /** @returns {readonly object[]} The rows in order; the same array until rows change. */
  get rows() {
    this.#rows ??= Object.freeze(this.#sort().map(({ row }) => row));
    return this.#rows;
  }

  /** @returns {string[]} Columns that the order names and no row has, if there are rows. */
  get unknownInOrder() {
    const rows = [...this.#entries.values()];
    return this.#ordering.filter((name) => rows.length > 0 && !rows.some(({ row }) => Object.hasOwn(row, name)));
  }

  /** @returns {[key: any, row: object][]} In order. */
  entries() {
    return this.#sort().map(({ key, row }) => [key, row]);
  }

  /**
   * @param {any} key The value of the key's column; of several an array in the order of the
   *   key, or an object that has them. A number and its text are the same key.
   */
  get(key) {
    return this.#entries.get(this.#textOf(this.#valuesOf(key)))?.row;
  }

  /**
   * A snapshot begins. One that was not completed counts for nothing.
   *
   * @param {?string[]} [key] The columns of the table's primary key, if the server names them.
   */
  begin(key = null) {
    if (key !== null && !this.#isKeyGiven) this.#keyBy(key);
    this.#noted.clear();
    this.#layers.cover();
    this.#phase = "snapshot";
  }

  /**
   * A row of a snapshot, one that came, or one that changed: all its cells that may be known now. A
   * cell that is not there any more (a record too large to send keeps its small cells alone) is not
   * kept from before, because it may have changed.
   *
   * @param {object} row
   * @param {{tx?: ?string, isInsert?: boolean}} [change] Of a change: whose transaction it is, where the
   *   page may know that, and whether the row is a new one.
   * @throws {KeyError}
   */
  put(row, { tx = null, isInsert = false } = {}) {
    const note = this.#entryOf(row);
    if (this.isReplacing && this.#noted.has(note.text)) {
      throw new KeyError(
        `two rows have ${this.#columns.join(", ")} = ${note.text}: name the columns of the primary key by the option "key"`,
      );
    }
    this.#noted.set(note.text, note);
    if (!this.isReplacing) this.#layers.heard({ text: note.text, entry: note, tx, isInsert });
  }

  /**
   * A row went. A row that is not here may go as well.
   *
   * @param {object} row Its key at least.
   * @param {{tx?: ?string}} [change]
   * @throws {KeyError}
   */
  drop(row, { tx = null } = {}) {
    const { text } = this.#entryOf(row);
    this.#noted.set(text, null);
    if (!this.isReplacing) this.#layers.heard({ text, entry: null, tx, isInsert: false });
  }

  /**
   * The page writes a row.
   *
   * @param {"insert"|"update"|"delete"} kind
   * @param {any} key As `get` takes it; of an insert nothing: the row has it, or the server makes it.
   * @param {object} [cells] The row, or the changes.
   * @returns {import("./layers.js").Layer}
   * @throws {TypeError} when an update changes the key.
   */
  write(kind, key, cells = {}) {
    if (kind === "insert") return this.#insert(cells);
    const values = this.#valuesOf(key);
    const text = this.#textOf(values);
    const another = this.#columns.find((name, index) => name in cells && String(cells[name]) !== String(values[index]));
    if (another) throw new TypeError(`an update does not change ${another}, which is the key: delete and insert the row`);
    const shown = this.#entries.get(text);
    return this.#layers.add(kind, { key: shown?.key ?? (values.length === 1 ? values[0] : values), text }, cells);
  }

  /** The server has taken what was written, by the transactions of these receipts. */
  taken(layer, receipts) {
    this.#layers.taken(layer, receipts);
  }

  /** The server has refused it. */
  refused(layer) {
    this.#layers.refused(layer);
  }

  /** It has been waited for long enough. */
  giveUp(layer) {
    this.#layers.giveUp(layer);
  }

  /** @returns {import("./layers.js").Layer[]} What was written and waits for an answer or the stream. */
  get waiting() {
    return this.#layers.waiting;
  }

  /** @returns {[import("./layers.js").Layer, string][]} As `Layers.takeGone`. */
  takeGone() {
    return this.#layers.takeGone();
  }

  /** @returns {boolean} Whether this row is shown as the page wrote it. */
  isWritten(key) {
    return this.#layers.has(this.#textOf(this.#valuesOf(key)));
  }

  /** The snapshot is complete. */
  end() {
    if (this.isReplacing) this.#phase = "replace";
  }

  /**
   * Shows what was noted, and what the page wrote.
   *
   * @returns {{key: any, before: object|undefined, after: object|undefined, own?: true}[]} The rows that
   *   came (no `before`), changed, or went (no `after`); `own` where the page wrote them. During a
   *   snapshot only what the page wrote.
   */
  commit() {
    if (this.isReplacing) return this.overlay();
    const isReplaced = this.#phase === "replace";
    const next = new Map();
    if (isReplaced) {
      for (const texts of [this.#entries.keys(), this.#layers.texts()]) {
        for (const text of texts) if (!this.#noted.get(text)) next.set(text, null);
      }
    }
    for (const [text, entry] of this.#noted) next.set(text, entry);
    this.#noted.clear();
    this.#phase = "changes";
    const own = this.#layers.commit(next, isReplaced);
    return this.#show(next, own);
  }

  /**
   * Shows what the page wrote, and nothing of what was noted.
   *
   * @returns As `commit`.
   */
  overlay() {
    const next = this.#layers.refold();
    return this.#show(next, next);
  }

  #show(next, own) {
    const changes = [];
    for (const [text, entry] of next) {
      const old = this.#entries.get(text);
      let change;
      if (entry === null) {
        if (old === undefined) continue;
        this.#remove(text);
        change = { key: old.key, before: old.row, after: undefined };
      } else if (old === undefined || !equal(old.row, entry.row)) {
        this.#entries.set(text, entry);
        if (this.#compare) this.#unsorted.set(text, entry);
        change = { key: entry.key, before: old?.row, after: entry.row };
      } else continue;
      if (own.has(text)) change.own = true;
      changes.push(change);
    }
    if (changes.length) this.#rows = null;
    return changes;
  }

  #insert(row) {
    const missing = this.#columns.filter((name) => (row[name] ?? null) === null);
    if (missing.length === 0) {
      const entry = this.#entryOf(row);
      return this.#layers.add("insert", entry, row);
    }
    const made = Object.fromEntries(missing.map((name) => [name, this.#makeKey(name)]));
    const { key, text } = this.#entryOf({ ...row, ...made });
    const given = Object.fromEntries(Object.entries(row).filter(([name]) => !missing.includes(name)));
    return this.#layers.add("insert", { key, text }, given, made);
  }

  /** A number, unless the rows that are here have keys of another type. */
  #makeKey(name) {
    const [first] = this.#entries.values();
    return typeof (first?.row[name] ?? 0) === "number" ? (this.#made += 1) : randomKey();
  }

  /** The rows that are here are found by these columns from now on. */
  #keyBy(columns) {
    if (equal(columns, this.#columns)) return;
    this.#columns = [...columns];
    const before = [...this.#entries];
    const texts = new Map();
    this.#entries.clear();
    for (const [text, entry] of before) {
      // A row that lacks them is shown until the snapshot is, and goes then.
      const isKeyed = columns.every((name) => (entry.row[name] ?? null) !== null);
      const now = isKeyed ? this.#entryOf(entry.row) : { ...entry, text: `without a key: ${text}` };
      this.#entries.set(now.text, now);
      texts.set(text, now.text);
    }
    this.#layers.rename(texts);
    this.#sorted = [];
    this.#unsorted = new Map(this.#entries);
  }

  #remove(text) {
    this.#entries.delete(text);
    this.#unsorted.delete(text);
  }

  #note(row) {
    const entry = this.#entryOf(row);
    this.#noted.set(entry.text, entry);
  }

  #entryOf(row) {
    const values = this.#columns.map((name) => row[name] ?? null);
    const missing = this.#columns.filter((_, index) => values[index] === null);
    if (missing.length) {
      const has = Object.keys(row).join(", ") || "none";
      throw new KeyError(
        `a row came without ${missing.join(", ")} (its columns: ${has}): name the columns of the primary key by the option "key"`,
      );
    }
    return { key: values.length === 1 ? values[0] : values, text: this.#textOf(values), row };
  }

  #valuesOf(key) {
    if (Array.isArray(key)) return key;
    return key !== null && typeof key === "object" ? this.#columns.map((name) => key[name]) : [key];
  }

  #textOf(values) {
    return values.length === 1 ? String(values[0]) : JSON.stringify(values.map(String));
  }

  /** Most of the rows are in order already: the new ones are sorted in. */
  #sort() {
    if (this.#rows === null) {
      const isHere = (entry) => this.#entries.get(entry.text) === entry;
      this.#sorted = this.#compare
        ? [...this.#sorted.filter(isHere), ...this.#unsorted.values()].sort(
            (a, b) => this.#compare(a.row, b.row) || byKey(a, b),
          )
        : [...this.#entries.values()];
      this.#unsorted.clear();
    }
    return this.#sorted;
  }
}

/**
 * @param {null|string|string[]|((a: object, b: object) => number)} order Columns, each with "-"
 *   before it to begin with the largest; or a comparison as `sort` takes one.
 * @returns {null|((a: object, b: object) => number)}
 */
export function orderOf(order) {
  if (order === null || typeof order === "function") return order;
  const columns = columnsOf(order);
  return (a, b) => {
    for (const { name, sign } of columns) {
      const difference = compared(a[name] ?? null, b[name] ?? null, sign);
      if (difference) return difference;
    }
    return 0;
  };
}

function columnsOf(order) {
  return [order ?? []].flat().map((name) =>
    name.startsWith("-") ? { name: name.slice(1), sign: -1 } : { name, sign: 1 },
  );
}

/** Nothing comes last in both directions. */
function compared(a, b, sign = 1) {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  if (typeof a !== typeof b || typeof a === "object") {
    a = JSON.stringify(a);
    b = JSON.stringify(b);
  }
  return sign * (Number(a > b) - Number(a < b));
}

function byKey(a, b) {
  const [left, right] = [[a.key].flat(), [b.key].flat()];
  for (const [index, value] of left.entries()) {
    const difference = compared(value, right[index]);
    if (difference) return difference;
  }
  return 0;
}
