/**
 * The rows this page may see, by table and id.
 *
 * Owns their state and nothing on the screen. It changes in three ways: all rows are replaced by
 * what the server read, a change of the stream is applied, or the page shows its own change at once
 * (`patch`) until the stream confirms it. Changes that arrive while rows are being read are kept
 * back and applied on top of them in stream order, so the newest always wins.
 */

export const TABLES = ["demo_team", "demo_membership", "demo_task", "demo_message"];

export class Store {
  me;
  people = new Map();
  #tables = new Map();
  #held = null;
  #listeners = new Set();

  /** @param {object} board As `demo/rows.py` makes it. */
  constructor(board) {
    this.replace(board);
  }

  /** @param {(change?: object) => void} listener Called after each change; without one after a replace. */
  onChange(listener) {
    this.#listeners.add(listener);
  }

  rows(table) {
    return [...this.#tables.get(table).values()];
  }

  get(table, id) {
    return this.#tables.get(table).get(id);
  }

  /** @returns {Map<number, string>} The user's teams by id, with the role in each. */
  get myTeams() {
    const mine = this.rows("demo_membership").filter((row) => row.user_id === this.me.id);
    return new Map(mine.map((row) => [row.team_id, row.role]));
  }

  replace(board) {
    this.me = board.me;
    this.people = new Map(board.people.map((person) => [person.id, person]));
    this.people.set(board.me.id, board.me);
    for (const table of TABLES) {
      this.#tables.set(table, new Map(board[table].map((row) => [row.id, row])));
    }
    this.#tell();
  }

  /** Keeps changes back from now on, because rows are being read. */
  hold() {
    this.#held ??= [];
  }

  /** Applies what was kept back. */
  release() {
    const held = this.#held ?? [];
    this.#held = null;
    for (const change of held) this.apply(change);
  }

  /** @param {import("../realtime/client.js").Change} change */
  apply(change) {
    if (this.#held) {
      this.#held.push(change);
      return;
    }
    const rows = this.#tables.get(change.table);
    const id = change.eventType === "DELETE" ? change.old.id : change.new.id;
    const before = rows.get(id);
    if (change.eventType === "DELETE") rows.delete(id);
    else rows.set(id, { ...before, ...change.new });
    this.#tell({ ...change, before, after: rows.get(id) });
  }

  /** Shows a change that was requested from the server; `replace` or the stream overwrites it. */
  patch(table, id, values) {
    const rows = this.#tables.get(table);
    if (!rows.has(id)) return;
    rows.set(id, { ...rows.get(id), ...values });
    this.#tell();
  }

  #tell(change) {
    for (const listener of this.#listeners) listener(change);
  }
}
