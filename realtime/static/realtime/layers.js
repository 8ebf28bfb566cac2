/**
 * What a page has written and the stream has not confirmed yet, as layers over the rows of a
 * collection. Pure: no clock, no connection.
 *
 * A row is shown as the server has it, and over that what this page wrote, in the order in which it
 * wrote. A layer goes
 * - when the stream shows its transaction on its row: with that very change, so that nothing flickers;
 * - when a snapshot covers it, or it is given up because the stream shows nothing of it: then what the
 *   server has is shown;
 * - when the server refuses it.
 *
 * Rows are known here by the text of their key. An entry is `{key, text, row}`, never changed; a row
 * that the server does not have is null.
 */

import { equal } from "./json.js";

// What is remembered for a write that waits, and for a commit. Of a write whose echo is forgotten, the
// layer is given up in the end.
const MOST_HEARD = 100;
const MOST_UNCOMMITTED = 1000;

/**
 * @typedef {object} Layer
 * @property {"insert"|"update"|"delete"} kind
 * @property {string} text Of the row's key; another once the server has named the key.
 * @property {any} key
 * @property {object} cells What is written; of a delete none.
 * @property {?object} made The cells of a key that stands in for one that the server makes; null
 *   where the key is the row's own.
 * @property {"sending"|"taken"|"echoed"|"gone"} stage "taken" when the server has answered, "echoed"
 *   when its transaction has come and more of it may follow, "gone" when it is no layer any more.
 * @property {string[]} receipts Of the transactions that wrote it.
 */

export class Layers {
  // By the text of the key: what the server has, the layers in their order, and how many inserts
  // keep the row back until it is known whose it is.
  #rows = new Map();
  // Inserts whose key the server makes, in their order.
  #temporary = new Set();
  #heard = [];
  #dirty = new Set();
  #gone = [];
  #count = 0;
  #shown;

  /** @param {(text: string) => ?object} shown The entry that is shown of a row, null for none. */
  constructor(shown) {
    this.#shown = shown;
  }

  /** @returns {boolean} Whether this row has layers. */
  has(text) {
    return (this.#rows.get(text)?.layers.length ?? 0) > 0;
  }

  /** @returns {Iterable<string>} The rows of which `beneath` knows what the server has. */
  texts() {
    return this.#rows.keys();
  }

  /** @returns {Layer[]} All that wait for an answer or the stream. */
  get waiting() {
    return [...this.#rows.values()].flatMap(({ layers }) => layers);
  }

  /**
   * @param {"insert"|"update"|"delete"} kind
   * @param {{key: any, text: string}} at
   * @param {object} cells
   * @param {?object} [made]
   * @returns {Layer}
   */
  add(kind, { key, text }, cells, made = null) {
    const layer = {
      number: (this.#count += 1), kind, key, text, cells: { ...cells }, made,
      stage: "sending", receipts: [],
      // What came while it was not answered: transactions on its row, one without a name that has
      // what it wrote, and new rows that may be its own, which are kept back so long.
      heard: new Set(), isLike: false, isInSnapshot: false, candidates: [], keepsBack: true,
      isOver: false, isCovered: false, isHidden: false, isPart: false,
    };
    this.#rowOf(text).layers.push(layer);
    if (made) this.#temporary.add(layer);
    this.#dirty.add(text);
    return layer;
  }

  /**
   * A change of the stream that belongs to the next `commit`.
   *
   * @param {{text: string, key: any, entry: ?object, tx: ?string, isInsert: boolean}} change
   */
  heard(change) {
    // Most pages have no layers most of the time, and nothing is kept for them.
    if (this.#rows.size === 0) return;
    const { text, tx, isInsert } = change;
    if (this.#rows.has(text) || (isInsert && this.#temporary.size > 0)) this.#heard.push(change);
    else if (tx === null || this.#heard.at(-1)?.tx !== tx) this.#heard.push({ text, tx, entry: null, isInsert: false });
    if (this.#heard.length > MOST_UNCOMMITTED) this.#heard.shift();
  }

  /** A snapshot begins: it has all that the server had taken by now. */
  cover() {
    for (const layer of this.waiting) layer.isCovered = layer.stage !== "sending";
  }

  /**
   * The server has taken what was written.
   *
   * @param {Layer} layer
   * @param {string[]} receipts Of its transactions, if the server gives any.
   */
  taken(layer, receipts) {
    if (layer.stage !== "sending") return;
    layer.receipts = receipts;
    layer.stage = "taken";
    if (layer.made) {
      const own = layer.candidates.filter((one) => isOf(layer, one.tx) || one.isInSnapshot);
      const found = own.find(({ entry }) => isIn(layer, entry)) ?? own.find((one) => one.tx !== null);
      // What is shown already has perhaps been written to since.
      if (found) layer.isOver = !found.isHeld;
      this.#release(layer);
      if (found) this.#arrived(layer, found);
    } else if (
      receipts.some((tx) => layer.heard.has(tx)) ||
      (layer.isLike && (receipts.length === 0 || layer.isInSnapshot))
    ) {
      layer.stage = "echoed";
    }
    layer.heard.clear();
    this.#dirty.add(layer.text);
    this.#settle();
  }

  /** The server has refused it, or could not be asked. */
  refused(layer) {
    this.#remove(layer, "refused");
  }

  /** It has been waited for long enough: for an answer, the echo, or more of the transaction. */
  giveUp(layer) {
    if (layer.stage === "sending") {
      this.#release(layer);
      layer.keepsBack = false;
    } else if (layer.stage === "taken") this.#confirm(layer, false);
    else if (layer.stage === "echoed") this.#confirm(layer, true);
  }

  /**
   * The rows of one commit: what the server has of them goes in, what is shown comes out.
   *
   * @param {Map<string, ?object>} next Entries by text; changed to what is shown.
   * @param {boolean} isReplaced Whether `next` is a snapshot.
   * @returns {Set<string>} Those whose layers are others than before.
   */
  commit(next, isReplaced) {
    for (const [text, entry] of next) {
      const row = this.#rows.get(text);
      if (!row) continue;
      row.before = row.beneath;
      row.beneath = entry;
    }
    const heard = this.#heard;
    this.#heard = [];
    for (const change of heard) this.#match(change, next);
    if (isReplaced) this.#replace(next);
    this.#settle();
    for (const text of this.#dirty) {
      if (!next.has(text)) next.set(text, this.#rows.get(text)?.beneath ?? null);
    }
    return this.#fold(next);
  }

  /** What is shown where only layers are others than before: as `commit`, without changes. */
  refold() {
    const next = new Map();
    for (const text of this.#dirty) if (this.#rows.has(text)) next.set(text, this.#rows.get(text).beneath);
    this.#fold(next);
    return next;
  }

  /**
   * Layers that are gone since the last call, with what became of them.
   *
   * @returns {[Layer, "shown"|"passed"|"refused"][]}
   */
  takeGone() {
    const gone = this.#gone;
    this.#gone = [];
    return gone;
  }

  /** Rows are found by other columns from now on. */
  rename(texts) {
    const nowOf = (text) => texts.get(text) ?? text;
    const before = [...this.#rows];
    this.#rows.clear();
    for (const [text, row] of before) {
      for (const layer of row.layers) {
        layer.text = nowOf(text);
        for (const candidate of layer.candidates) candidate.text = nowOf(candidate.text);
      }
      this.#rows.set(nowOf(text), row);
    }
  }

  /** What is shown of a row without layers is the server's, unless this commit brings it. */
  #rowOf(text, next = null) {
    if (!this.#rows.has(text)) {
      const beneath = next?.has(text) ? next.get(text) : this.#shown(text);
      this.#rows.set(text, { beneath, before: beneath, layers: [], holds: 0 });
    }
    return this.#rows.get(text);
  }

  /** Applies the layers to what the server has, and forgets rows that have none. */
  #fold(next) {
    const own = new Set(this.#dirty);
    for (const [text, beneath] of next) {
      const row = this.#rows.get(text);
      if (!row) continue;
      let entry = row.holds > 0 ? null : beneath;
      for (const layer of row.layers) entry = laid(layer, entry);
      next.set(text, entry);
    }
    for (const text of this.#dirty) {
      const row = this.#rows.get(text);
      if (row && row.layers.length === 0 && row.holds === 0) this.#rows.delete(text);
    }
    this.#dirty.clear();
    return own;
  }

  /** A snapshot is shown: it has what was taken before it began, and perhaps what was on its way. */
  #replace(next) {
    for (const layer of this.waiting) {
      if (layer.isCovered) this.#confirm(layer, true);
      else if (layer.stage === "sending" && !layer.made) {
        const { before, beneath } = this.#rows.get(layer.text);
        if (isIn(layer, beneath) && !isIn(layer, before)) layer.isLike = layer.isInSnapshot = true;
      }
    }
    if (this.#temporary.size === 0) return;
    for (const [text, entry] of next) {
      if (entry !== null && this.#shown(text) === null) this.#insertCame({ text, entry, tx: null, isInSnapshot: true }, next);
    }
  }

  #match(change, next) {
    const { text, entry, tx, isInsert } = change;
    const row = this.#rows.get(text);
    // The changes of a transaction stand together: with another one, an echo is complete.
    for (const layer of this.waiting) {
      if (layer.stage === "echoed" && !layer.receipts.includes(tx)) layer.isOver = true;
    }
    for (const layer of row?.layers ?? []) {
      if (layer.made) continue;
      if (layer.stage === "sending") {
        if (tx === null) layer.isLike ||= isIn(layer, entry);
        else if (layer.heard.size < MOST_HEARD) layer.heard.add(tx);
        if (tx !== null || layer.isLike) this.#dirty.add(text);
      } else if (layer.stage === "taken") {
        if (isOf(layer, tx) && (tx !== null || isIn(layer, entry))) {
          layer.stage = "echoed";
          this.#dirty.add(text);
        }
      }
    }
    if (isInsert && entry !== null) this.#insertCame(change, next);
  }

  /** A new row: one that an insert of this page waits for, perhaps. */
  #insertCame({ text, entry, tx, isInSnapshot = false }, next) {
    const fits = (layer) => layer.stage === "taken" && isOf(layer, tx) && (tx !== null || isIn(layer, entry));
    const own = [...this.#temporary].filter(fits);
    const found = own.find((layer) => isIn(layer, entry)) ?? own[0];
    if (found) {
      this.#arrived(found, { text, entry }, next);
      return;
    }
    if (tx !== null && this.waiting.some((layer) => isOf(layer, tx))) return;
    for (const layer of this.#temporary) {
      if (layer.stage !== "sending" || layer.candidates.length >= MOST_HEARD) continue;
      if (tx === null && !isIn(layer, entry)) continue;
      // Shown beside the row that it may turn out to be, it would be there twice for a moment.
      layer.candidates.push({ text, entry, tx, isInSnapshot, isHeld: layer.keepsBack });
      if (!layer.keepsBack) continue;
      this.#rowOf(text, next).holds += 1;
      this.#dirty.add(text);
    }
  }

  /** The row that the server made of an insert takes its place, and the layers that lie on it. */
  #arrived(layer, { text, entry }, next = null) {
    for (const other of this.#temporary) {
      other.candidates = other.candidates.filter((candidate) => candidate.text !== text);
    }
    const before = this.#rows.get(layer.text);
    const now = this.#rowOf(text, next);
    now.holds = 0;
    this.#dirty.add(layer.text).add(text);
    for (const moved of before.layers) {
      moved.text = text;
      moved.key = entry.key;
    }
    now.layers = [...before.layers, ...now.layers].sort((a, b) => a.number - b.number);
    before.layers = [];
    layer.stage = "echoed";
    layer.made = null;
    this.#temporary.delete(layer);
  }

  /** Rows that were kept back for this insert are shown. */
  #release(layer) {
    for (const candidate of layer.candidates) {
      if (!candidate.isHeld) continue;
      candidate.isHeld = false;
      this.#rows.get(candidate.text).holds -= 1;
      this.#dirty.add(candidate.text);
    }
  }

  #settle() {
    for (const layer of this.waiting) {
      if (layer.stage !== "echoed") continue;
      const { beneath } = this.#rows.get(layer.text);
      if (layer.isOver || beneath === null || isIn(layer, beneath)) this.#confirm(layer, true);
    }
  }

  #confirm(layer, isShown) {
    const { layers } = this.#rows.get(layer.text);
    // What the page wrote before must not be shown over what it wrote later.
    for (const earlier of layers.slice(0, layers.indexOf(layer))) {
      if (layer.kind !== "update" || earlier.kind === "delete") earlier.isHidden = true;
      else {
        for (const name of Object.keys(layer.cells)) delete earlier.cells[name];
        earlier.isPart = true;
      }
    }
    this.#remove(layer, isShown ? "shown" : "passed");
  }

  #remove(layer, outcome) {
    if (layer.stage === "gone") return;
    this.#release(layer);
    const row = this.#rows.get(layer.text);
    row.layers = row.layers.filter((one) => one !== layer);
    this.#temporary.delete(layer);
    this.#dirty.add(layer.text);
    layer.stage = "gone";
    this.#gone.push([layer, outcome]);
  }
}

/** Whether a change with this receipt is one of the layer's. One without is, where the server gives none. */
function isOf({ receipts }, tx) {
  return tx === null ? receipts.length === 0 : receipts.includes(tx);
}

/** Whether what the server has of a row is what the layer wrote, as far as the stream shows it. */
function isIn({ kind, cells }, entry) {
  if (kind === "delete") return entry === null;
  if (entry === null) return false;
  return Object.entries(cells).every(
    ([name, value]) => !Object.hasOwn(entry.row, name) || equal(entry.row[name], value),
  );
}

function laid({ kind, key, text, cells, made, isHidden, isPart }, entry) {
  if (isHidden) return entry;
  if (kind === "delete") return null;
  if (entry === null) return kind === "insert" && !isPart ? { key, text, row: { ...cells, ...made } } : null;
  return { ...entry, row: { ...entry.row, ...cells } };
}
