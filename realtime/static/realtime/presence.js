/**
 * Who is in a topic: the server sends one state, and then diffs. Pure: the methods take what the
 * server sent and return the reports for the page.
 *
 * A key (a person, say) has a meta for each of its connections, identified by the server's
 * `phx_ref`. The page gets it as `presence_ref`, as in the official clients.
 */

import { equal, isObject } from "./json.js";

const MOST_HELD = 500;

/**
 * @typedef {{presence_ref: string} & Record<string, unknown>} Meta What one connection
 *   tracked, and the server's ref for it. On a private topic `phx_user_id` is the user, as the
 *   server knows it: a page cannot set it.
 */

/**
 * @typedef {object} PresenceReport
 * @property {"sync"|"join"|"leave"} event
 * @property {string} [key] The key whose metas came or went; absent for "sync".
 * @property {Meta[]} [currentPresences] The other metas of this key, unchanged.
 * @property {Meta[]} [newPresences] Of a "join": the new metas.
 * @property {Meta[]} [leftPresences] Of a "leave": the former metas.
 */

export class Presence {
  #metas = new Map();
  #held = [];
  // The meta that this page tracks again after a reconnect, as {key, meta}. Its old meta is either
  // kept although the server has it no longer (absent), or still there beside the new one (stale).
  #returning = null;
  #absent = null;
  #stale = null;
  // Refs that leave without a report: another meta has taken their place.
  #silent = new Set();

  /** @returns {Record<string, Meta[]>} Without a prototype, because keys may be any text. */
  get state() {
    const state = Object.create(null);
    for (const [key, metas] of this.#metas) state[key] = [...metas];
    return state;
  }

  /** @returns {boolean} Whether too many diffs came before the state to keep them. */
  get isOverfull() {
    return this.#held !== null && this.#held.length >= MOST_HELD;
  }

  /**
   * A join begins. Diffs are kept until its state comes.
   *
   * @param {?{key: string, meta: object}} mine What this page will track again. Its absence from
   *   the state is then not reported as a leave, nor its return as a join.
   */
  begin(mine) {
    this.#held = [];
    this.#returning = mine;
    this.#absent = this.#stale = null;
  }

  /** @returns {PresenceReport[]} The differences between the new state and the former one. */
  replace(payload) {
    const now = read(payload);
    const reports = [];
    for (const key of new Set([...this.#metas.keys(), ...now.keys()])) {
      const before = this.#reported(this.#metas.get(key) ?? []);
      const after = now.get(key) ?? [];
      const { came, gone } = compare(before, this.#reported(after));
      const absent = this.#await(key, before, after, gone);
      if (absent) {
        gone.splice(gone.indexOf(absent), 1);
        now.set(key, [absent, ...after]);
      }
      const all = now.get(key) ?? [];
      if (came.length) reports.push(joined(key, all.filter((meta) => !came.includes(meta)), came));
      if (gone.length) reports.push(left(key, all, gone));
    }
    this.#metas = now;
    const refs = new Set([...now.values()].flat().map(refOf));
    this.#silent = new Set([...this.#silent].filter((ref) => refs.has(ref)));
    if (!this.#absent && !this.#stale) this.#returning = null;
    const held = this.#held ?? [];
    this.#held = null;
    for (const diff of held) reports.push(...this.#apply(diff));
    return [...reports, { event: "sync" }];
  }

  /** @returns {PresenceReport[]} The effect of a diff; empty while the state is awaited. */
  change(payload) {
    if (this.#held === null) return [...this.#apply(payload), { event: "sync" }];
    if (!this.isOverfull) this.#held.push(payload);
    return [];
  }

  /** The page does not track its meta again: it left when the connection was lost. */
  giveUp() {
    const absent = this.#absent;
    const key = this.#returning?.key;
    this.#absent = this.#stale = this.#returning = null;
    return absent ? [...this.#remove(key, [absent.presence_ref]), { event: "sync" }] : [];
  }

  #apply({ joins, leaves }) {
    const reports = [];
    for (const [key, metas] of read(joins)) reports.push(...this.#add(key, metas));
    for (const [key, metas] of read(leaves)) reports.push(...this.#remove(key, metas.map(refOf)));
    return reports;
  }

  #add(key, metas) {
    const known = this.#metas.get(key) ?? [];
    const refs = new Set(known.map(refOf));
    const came = metas.filter((meta) => !refs.has(meta.presence_ref));
    const mine = this.#returning?.key === key
      ? came.find((meta) => shows(meta, this.#returning.meta))
      : undefined;
    const stay = mine ? known.filter((meta) => meta !== this.#absent) : known;
    if (mine) {
      if (this.#stale) this.#silent.add(this.#stale.presence_ref);
      this.#absent = this.#stale = this.#returning = null;
    }
    this.#metas.set(key, [...stay, ...came]);
    const news = came.filter((meta) => meta !== mine);
    return news.length ? [joined(key, mine ? [...stay, mine] : stay, news)] : [];
  }

  #remove(key, refs) {
    const metas = this.#metas.get(key) ?? [];
    const gone = metas.filter((meta) => refs.includes(meta.presence_ref));
    if (gone.length === 0) return [];
    const stay = metas.filter((meta) => !gone.includes(meta));
    if (stay.length) this.#metas.set(key, stay);
    else this.#metas.delete(key);
    const news = this.#reported(gone);
    for (const ref of refs) this.#silent.delete(ref);
    return news.length ? [left(key, stay, news)] : [];
  }

  #reported(metas) {
    return metas.filter((meta) => !this.#silent.has(meta.presence_ref));
  }

  /** Finds the old meta of this page. Returns it when the server has it no longer. */
  #await(key, before, after, gone) {
    const mine = this.#returning;
    if (mine?.key !== key) return null;
    const isMine = (meta) => shows(meta, mine.meta);
    this.#absent = gone.find(isMine) ?? null;
    if (this.#absent) return this.#absent;
    const refs = new Set(before.map(refOf));
    this.#stale = after.find((meta) => refs.has(meta.presence_ref) && isMine(meta)) ?? null;
    return null;
  }
}

const refOf = (meta) => meta.presence_ref;
const joined = (key, currentPresences, newPresences) =>
  ({ event: "join", key, currentPresences, newPresences });
const left = (key, currentPresences, leftPresences) =>
  ({ event: "leave", key, currentPresences, leftPresences });

/** Metas by key. Entries without the right shape are skipped. */
function read(payload) {
  const entries = isObject(payload) ? Object.entries(payload) : [];
  const found = new Map();
  for (const [key, entry] of entries) {
    const metas = new Map();
    for (const meta of Array.isArray(entry?.metas) ? entry.metas : []) {
      if (typeof meta?.phx_ref !== "string") continue;
      const { phx_ref, phx_ref_prev, ...shown } = meta;
      metas.set(phx_ref, Object.freeze({ ...shown, presence_ref: phx_ref }));
    }
    if (metas.size) found.set(key, [...metas.values()]);
  }
  return found;
}

/**
 * The differences between two lists of metas. An equal meta under another ref is a page that has
 * reconnected: neither gone nor come.
 */
function compare(before, after) {
  const refs = (metas) => new Set(metas.map(refOf));
  const [was, is] = [refs(before), refs(after)];
  const gone = before.filter((meta) => !is.has(meta.presence_ref));
  const came = after.filter((meta) => {
    if (was.has(meta.presence_ref)) return false;
    const same = gone.findIndex((one) => equal({ ...one, presence_ref: meta.presence_ref }, meta));
    if (same !== -1) gone.splice(same, 1);
    return same === -1;
  });
  return { came, gone };
}

/** Whether a meta contains everything that was tracked; the server may have added to it. */
function shows(meta, tracked) {
  const isThere = (name) => Object.hasOwn(meta, name) && equal(meta[name], tracked[name]);
  return Object.keys(tracked).every(isThere);
}
