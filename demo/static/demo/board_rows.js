/**
 * What the page shows, and nothing on the screen: a collection of each table, the people behind the
 * ids in their rows, and the moves that this page has made and the stream has not confirmed yet.
 */

export const TABLES = ["demo_team", "demo_membership", "demo_task", "demo_message"];

const WORST_FIRST = ["errored", "closed", "joining", "catching up", "live"];
const CONFIRMED_WITHIN_MS = 3000;

export class BoardRows {
  me;
  people = new Map();
  #collections;
  #moves = new Map();
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
      collection.subscribe((batch) => this.#heard(table, batch));
    }
  }

  /**
   * @param {(batch?: {table: string, changes: object[], snapshot: boolean}) => void} listener Called
   *   after each batch of a table's collection; without one when people or own moves are others.
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
    return Array.from(this.#collections.get(table), (row) => this.#moved(table, row));
  }

  get(table, id) {
    const row = this.#collections.get(table).get(id);
    return row && this.#moved(table, row);
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

  /**
   * Shows a task where its user has put it until the stream says where it is.
   *
   * @param {number} id
   * @param {object} values
   * @param {Promise<boolean>} done Whether the server has taken it.
   */
  async move(id, values, done) {
    this.#moves.set(id, values);
    this.#tell();
    const forget = () => {
      if (this.#moves.get(id) !== values) return;
      this.#moves.delete(id);
      this.#tell();
    };
    // Taken, its change is on its way; where nothing has changed, none comes.
    if (!(await done)) forget();
    else if (this.state.status === "live") setTimeout(forget, CONFIRMED_WITHIN_MS);
  }

  #moved(table, row) {
    const values = table === "demo_task" ? this.#moves.get(row.id) : undefined;
    return values ? { ...row, ...values } : row;
  }

  #heard(table, batch) {
    if (table === "demo_task") {
      if (batch.snapshot) this.#moves.clear();
      for (const { key } of batch.changes) this.#moves.delete(key);
    }
    this.#tell({ ...batch, table });
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
