/**
 * What the page shows, and nothing on the screen: a collection of each table, and the people behind
 * the ids in their rows.
 */

export const TABLES = ["demo_team", "demo_membership", "demo_task", "demo_message"];

const WORST_FIRST = ["errored", "closed", "joining", "catching up", "live"];

export class BoardRows {
  me;
  people = new Map();
  #collections;
  #listeners = new Set();

  /**
   * @param {import("../realtime/client.js").Client} client
   * @param {object} board As `demo/rows.py` makes it; its rows are shown until the server's own come.
   * @param {(change: object) => void} onChange Called with each change of the stream.
   */
  constructor(client, board, onChange) {
    this.#setPeople(board);
    this.#collections = new Map(
      TABLES.map((table) => [table, client.collection(table, { initial: board[table], onChange })]),
    );
    for (const [table, collection] of this.#collections) {
      collection.subscribe((batch) => this.#tell({ ...batch, table }));
    }
  }

  /**
   * @param {(batch?: {table: string, changes: object[], snapshot: boolean}) => void} listener Called
   *   after each batch of a table's collection; without one when people are others.
   */
  onChange(listener) {
    this.#listeners.add(listener);
  }

  /** @returns {{status: string, error: ?Error}} Of the collection that is worst off. */
  get state() {
    const [worst] = [...this.#collections.values()].sort(
      (a, b) => WORST_FIRST.indexOf(a.status) - WORST_FIRST.indexOf(b.status),
    );
    return { status: worst.status, error: worst.error };
  }

  /** @returns {object[]} The rows of a table. */
  all(table) {
    return [...this.#collections.get(table)];
  }

  get(table, id) {
    return this.#collections.get(table).get(id);
  }

  /** @returns {import("../realtime/client.js").Collection} The tasks, to be written to. */
  get tasks() {
    return this.#collections.get("demo_task");
  }

  /** @returns {Map<number, string>} The user's teams by id, with the role in each. */
  get myTeams() {
    const mine = this.all("demo_membership").filter((row) => row.user_id === this.me.id);
    return new Map(mine.map((row) => [row.team_id, row.role]));
  }

  /** Names are not in the stream: they are read. */
  setPeople(board) {
    this.#setPeople(board);
    this.#tell();
  }

  #setPeople({ me, people }) {
    this.me = me;
    this.people = new Map(people.map((person) => [person.id, person]));
    this.people.set(me.id, me);
  }

  #tell(batch) {
    for (const listener of this.#listeners) listener(batch);
  }
}
