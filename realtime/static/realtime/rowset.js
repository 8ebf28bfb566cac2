/**
 * The rows of a collection: keyed, in order, and changed in batches. Pure: it takes what the stream
 * says of rows, and answers with what a page would see change.
 *
 * What the stream says is noted and shown by `commit`. From `begin` to `end` it is a snapshot, which
 * replaces the rows as a whole: until `end` those of before stay, and a snapshot that is never
 * completed changes nothing. So what was deleted or hidden meanwhile vanishes, and a page is never
 * shown an empty set in between.
 */

import { equal } from "./json.js";

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
    this.#phase = "snapshot";
  }

  /**
   * A row of a snapshot, one that came, or one that changed: all its cells that may be known now. A
   * cell that is not there any more (a record too large to send keeps its small cells alone) is not
   * kept from before, because it may have changed.
   *
   * @throws {KeyError}
   */
  put(row) {
    const note = this.#entryOf(row);
    if (this.isReplacing && this.#noted.has(note.text)) {
      throw new KeyError(
        `two rows have ${this.#columns.join(", ")} = ${note.text}: name the columns of the primary key by the option "key"`,
      );
    }
    this.#noted.set(note.text, note);
  }

  /**
   * A row went. A row that is not here may go as well.
   *
   * @param {object} row Its key at least.
   * @throws {KeyError}
   */
  drop(row) {
    const { text } = this.#entryOf(row);
    this.#noted.set(text, null);
  }

  /** The snapshot is complete. */
  end() {
    if (this.isReplacing) this.#phase = "replace";
  }

  /**
   * Shows what was noted.
   *
   * @returns {{key: any, before: object|undefined, after: object|undefined}[]} The rows that came
   *   (no `before`), changed, or went (no `after`). During a snapshot none.
   */
  commit() {
    if (this.isReplacing) return [];
    const changes = [];
    if (this.#phase === "replace") {
      for (const [text, { key, row }] of this.#entries) {
        if (this.#noted.get(text)) continue;
        this.#remove(text);
        changes.push({ key, before: row, after: undefined });
      }
    }
    for (const [text, entry] of this.#noted) {
      const old = this.#entries.get(text);
      if (entry === null) {
        if (old === undefined) continue;
        this.#remove(text);
        changes.push({ key: old.key, before: old.row, after: undefined });
      } else if (old === undefined || !equal(old.row, entry.row)) {
        this.#entries.set(text, entry);
        if (this.#compare) this.#unsorted.set(text, entry);
        changes.push({ key: entry.key, before: old?.row, after: entry.row });
      }
    }
    this.#noted.clear();
    this.#phase = "changes";
    if (changes.length) this.#rows = null;
    return changes;
  }

  /** The rows that are here are found by these columns from now on. */
  #keyBy(columns) {
    if (equal(columns, this.#columns)) return;
    this.#columns = [...columns];
    const before = [...this.#entries];
    this.#entries.clear();
    for (const [text, entry] of before) {
      // A row that lacks them is shown until the snapshot is, and goes then.
      const isKeyed = columns.every((name) => (entry.row[name] ?? null) !== null);
      const now = isKeyed ? this.#entryOf(entry.row) : { ...entry, text: `without a key: ${text}` };
      this.#entries.set(now.text, now);
    }
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
