/** What a page writes, over the rows that a server has: no connection, no clock, any order. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { loadClient } from "./server.mjs";

const { RowSet } = await loadClient("rowset.js");

/** A set after a snapshot of these rows. */
function setOf(...rows) {
  const set = new RowSet();
  set.begin();
  for (const row of rows) set.put(row);
  set.end();
  set.commit();
  return set;
}

const shown = (set) => Object.fromEntries(set.rows.map((row) => [row.id, row.a]));
const outcomes = (set) => set.takeGone().map(([{ kind }, outcome]) => `${kind} ${outcome}`);

test("what is written is shown over the row, and its echo changes nothing more", () => {
  const set = setOf({ id: 1, a: "old", b: 1 });
  const layer = set.write("update", 1, { a: "new" });
  assert.deepEqual(set.overlay(), [
    { key: 1, before: { id: 1, a: "old", b: 1 }, after: { id: 1, a: "new", b: 1 }, own: true },
  ]);
  set.taken(layer, ["t1"]);
  assert.deepEqual(set.overlay(), []);
  set.put({ id: 1, a: "new", b: 1 }, { tx: "t1" });
  assert.deepEqual(set.commit(), []);
  assert.deepEqual(outcomes(set), ["update shown"]);
  assert.deepEqual(set.waiting, []);
});

test("an echo that comes before the answer is known by the receipt of the answer", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "new" });
  set.overlay();
  set.put({ id: 1, a: "new" }, { tx: "t1" });
  set.put({ id: 1, a: "of another" });
  set.commit();
  assert.deepEqual(shown(set), { 1: "new" });
  set.taken(layer, ["t1"]);
  set.giveUp(layer);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "of another" });
  assert.deepEqual(outcomes(set), ["update shown"]);
});

test("an answer between an echo and its being shown waits for that", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "new" });
  set.overlay();
  set.put({ id: 1, a: "new" }, { tx: "t1" });
  set.taken(layer, ["t1"]);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "new" });
  assert.deepEqual(outcomes(set), []);
  assert.deepEqual(set.commit(), []);
  assert.deepEqual(outcomes(set), ["update shown"]);
});

test("what others change meanwhile is shown beside what is written", () => {
  const set = setOf({ id: 1, a: "old", b: 1 });
  set.write("update", 1, { a: "new" });
  set.overlay();
  set.put({ id: 1, a: "of another", b: 2 });
  set.commit();
  assert.deepEqual(set.get(1), { id: 1, a: "new", b: 2 });
});

test("a refusal shows what the server says now", () => {
  const set = setOf({ id: 1, a: "old" }, { id: 2, a: "old" });
  const update = set.write("update", 1, { a: "new" });
  const gone = set.write("delete", 2);
  const insert = set.write("insert", undefined, { id: 3, a: "new" });
  set.overlay();
  assert.deepEqual(shown(set), { 1: "new", 3: "new" });
  set.put({ id: 1, a: "of another" });
  set.put({ id: 2, a: "of another" });
  set.commit();
  for (const layer of [update, gone, insert]) set.refused(layer);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "of another", 2: "of another" });
  assert.deepEqual(outcomes(set), ["update refused", "delete refused", "insert refused"]);
});

test("of two writes to a row the later stays shown, whichever the server shows first", () => {
  for (const order of [[0, 1], [1, 0]]) {
    const set = setOf({ id: 1, a: "old" });
    const layers = [set.write("update", 1, { a: "0" }), set.write("update", 1, { a: "1" })];
    set.overlay();
    assert.deepEqual(shown(set), { 1: "1" });
    const seen = [];
    for (const at of order) {
      set.taken(layers[at], [`t${at}`]);
      set.put({ id: 1, a: String(at) }, { tx: `t${at}` });
      set.commit();
      seen.push(shown(set)[1]);
    }
    // What the server shows last is what it has.
    assert.deepEqual(seen, order[0] === 0 ? ["1", "1"] : ["1", "0"]);
    assert.deepEqual(set.waiting, []);
  }
});

test("a refused write uncovers the one before it", () => {
  const set = setOf({ id: 1, a: "old" });
  set.write("update", 1, { a: "first" });
  const second = set.write("update", 1, { a: "second" });
  set.refused(second);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "first" });
});

test("what the server makes of a row takes the place of what was written in one change", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "new" });
  set.taken(layer, ["t1"]);
  set.overlay();
  // Two changes of one transaction, shown apart.
  set.put({ id: 1, a: "new?" }, { tx: "t1" });
  assert.deepEqual(set.commit(), []);
  set.put({ id: 1, a: "NEW" }, { tx: "t1" });
  set.put({ id: 9, a: "of another" });
  const changes = set.commit().filter(({ key }) => key === 1);
  assert.deepEqual(changes, [{ key: 1, before: { id: 1, a: "new" }, after: { id: 1, a: "NEW" }, own: true }]);
});

test("a row that was written out of sight goes, and the write with it", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "hidden" });
  set.taken(layer, ["t1"]);
  set.overlay();
  set.drop({ id: 1 }, { tx: "t1" });
  assert.deepEqual(set.commit().map(({ after }) => after), [undefined]);
  assert.deepEqual(outcomes(set), ["update shown"]);
});

test("of a request of several transactions each echo is known", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "new" });
  set.taken(layer, ["t1", "t2"]);
  set.overlay();
  set.put({ id: 1, a: "NEW" }, { tx: "t2" });
  set.put({ id: 2, a: "of another" });
  set.commit();
  assert.deepEqual(shown(set), { 1: "NEW", 2: "of another" });
  assert.deepEqual(outcomes(set), ["update shown"]);
});

test("a write that the stream shows nothing of gives way when it has been waited for", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "new" });
  set.taken(layer, ["t1"]);
  set.giveUp(layer);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "old" });
  assert.deepEqual(outcomes(set), ["update passed"]);
});

test("without receipts an echo is known by its values", () => {
  const set = setOf({ id: 1, a: "old" });
  const early = set.write("update", 1, { a: "new" });
  set.overlay();
  set.put({ id: 1, a: "new" });
  set.commit();
  set.taken(early, []);
  assert.deepEqual(outcomes(set), ["update shown"]);
  const late = set.write("delete", 1);
  set.taken(late, []);
  set.overlay();
  set.drop({ id: 1 });
  assert.deepEqual(set.commit(), []);
  assert.deepEqual(outcomes(set), ["delete shown"]);
});

describe("a row whose key the server makes", () => {
  function inserted() {
    const set = setOf({ id: 1, a: "old" });
    const layer = set.write("insert", undefined, { a: "new" });
    const [{ key }] = set.overlay();
    return { set, layer, key };
  }

  test("has a key until then that stands with the newest", () => {
    const { set, key } = inserted();
    assert.equal(key > 1e15, true);
    assert.deepEqual(set.get(key), { id: key, a: "new" });
    assert.notEqual(set.write("insert", undefined, { a: "another" }).key, key);
  });

  for (const when of ["before", "after"]) {
    test(`takes the place of the other in one change, where it comes ${when} the answer`, () => {
      const { set, layer, key } = inserted();
      const came = () => set.put({ id: 7, a: "new", made: true }, { tx: "t1", isInsert: true });
      let changes;
      if (when === "before") {
        came();
        assert.deepEqual(set.commit(), []);
        set.taken(layer, ["t1"]);
        changes = set.overlay();
      } else {
        set.taken(layer, ["t1"]);
        set.overlay();
        came();
        changes = set.commit();
      }
      const told = changes.map((change) => [change.key, change.after !== undefined, change.own]);
      assert.deepEqual(told.sort(([a], [b]) => a - b), [[7, true, true], [key, false, true]]);
      assert.equal(layer.key, 7);
      assert.deepEqual(outcomes(set), ["insert shown"]);
    });
  }

  test("of another page of the same user is shown as soon as it is known to be that", () => {
    const { set, layer } = inserted();
    set.put({ id: 6, a: "mine elsewhere" }, { tx: "t0", isInsert: true });
    set.put({ id: 7, a: "new" }, { tx: "t1", isInsert: true });
    set.commit();
    assert.equal(set.get(6), undefined);
    set.taken(layer, ["t1"]);
    set.overlay();
    assert.deepEqual(shown(set), { 1: "old", 6: "mine elsewhere", 7: "new" });
  });

  test("is not kept back for ever by an answer that does not come", () => {
    const { set, layer, key } = inserted();
    set.put({ id: 7, a: "new" }, { tx: "t1", isInsert: true });
    set.commit();
    set.giveUp(layer);
    set.overlay();
    assert.deepEqual(shown(set), { 1: "old", 7: "new", [key]: "new" });
    set.taken(layer, ["t1"]);
    set.overlay();
    assert.deepEqual(shown(set), { 1: "old", 7: "new" });
  });

  test("takes along what was written to it meanwhile", () => {
    const { set, layer, key } = inserted();
    set.write("update", key, { a: "newer" });
    set.overlay();
    set.taken(layer, ["t1"]);
    set.put({ id: 7, a: "new" }, { tx: "t1", isInsert: true });
    set.commit();
    assert.deepEqual(shown(set), { 1: "old", 7: "newer" });
  });

  test("is found among two that are on their way", () => {
    const { set, layer } = inserted();
    const other = set.write("insert", undefined, { a: "other" });
    set.overlay();
    set.put({ id: 8, a: "other" }, { tx: "t2", isInsert: true });
    set.put({ id: 7, a: "new" }, { tx: "t1", isInsert: true });
    set.commit();
    set.taken(layer, ["t1"]);
    set.overlay();
    assert.deepEqual(Object.keys(shown(set)).length, 3);
    set.taken(other, ["t2"]);
    set.overlay();
    assert.deepEqual(shown(set), { 1: "old", 7: "new", 8: "other" });
  });
});

test("a snapshot has what was taken before it began, and not what is on its way", () => {
  const set = setOf({ id: 1, a: "old" }, { id: 2, a: "old" });
  const taken = set.write("update", 1, { a: "mine" });
  set.write("update", 2, { a: "on its way" });
  set.taken(taken, ["t1"]);
  set.overlay();
  set.begin();
  set.put({ id: 1, a: "of another, later" });
  set.put({ id: 2, a: "of another" });
  set.end();
  set.commit();
  assert.deepEqual(shown(set), { 1: "of another, later", 2: "on its way" });
  assert.deepEqual(outcomes(set), ["update shown"]);
});

test("a snapshot that has what is on its way shows it once", () => {
  const set = setOf({ id: 1, a: "old" });
  const insert = set.write("insert", undefined, { a: "new" });
  const update = set.write("update", 1, { a: "newer" });
  set.overlay();
  set.begin();
  set.put({ id: 1, a: "newer" });
  set.put({ id: 7, a: "new" });
  set.end();
  assert.deepEqual(set.commit(), []);
  set.taken(insert, ["t1"]);
  set.taken(update, ["t2"]);
  set.overlay();
  assert.deepEqual(shown(set), { 1: "newer", 7: "new" });
  assert.deepEqual(set.waiting, []);
});

test("a row under a write that a snapshot does not have is gone", () => {
  const set = setOf({ id: 1, a: "old" }, { id: 2, a: "old" });
  const update = set.write("update", 1, { a: "mine" });
  const gone = set.write("delete", 2);
  set.overlay();
  set.begin();
  set.end();
  set.commit();
  assert.deepEqual(shown(set), {});
  set.refused(update);
  set.refused(gone);
  set.overlay();
  assert.deepEqual(shown(set), {});
});

test("an update does not change the key", () => {
  const set = setOf({ id: 1, a: "old" });
  assert.throws(() => set.write("update", 1, { id: 2 }), /does not change id, which is the key/);
  set.write("update", 1, { id: 1, a: "new" });
});

test("a row that changes a million times while a write waits costs no memory", () => {
  const set = setOf({ id: 1, a: "old" });
  const layer = set.write("update", 1, { a: "mine" });
  set.overlay();
  for (let n = 0; n < 20000; n += 1) set.put({ id: 1, a: `t${n}` }, { tx: `t${n}` });
  set.commit();
  assert.equal(layer.heard.size <= 100, true);
});

/** Numbers that look random and are the same each time: Mulberry32. */
function randomOf(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const COLUMNS = ["a", "b"];

/**
 * A page, a server and what is between them. Requests and answers take any order and time, the stream
 * is in order. Every value is written once, so it is known who wrote it and when.
 */
class World {
  server = new Map();
  log = [];
  requests = [];
  answers = [];
  writes = [];
  read = 0;
  nextId = 100;
  count = 0;

  constructor(seed) {
    this.random = randomOf(seed);
    for (const id of [1, 2, 3]) this.server.set(id, { id, a: `s${id}a`, b: `s${id}b` });
    this.set = new RowSet();
    this.snapshot();
  }

  pick(list) {
    return list[this.random(list.length)];
  }

  /** The page writes. */
  write() {
    const key = this.pick(this.set.entries())?.[0];
    const kind = key === undefined ? "insert" : this.pick(["update", "update", "update", "insert", "delete"]);
    const number = (this.count += 1);
    const cells = {};
    const names = kind === "insert" ? COLUMNS : [[], ["a"], ["b"], COLUMNS][kind === "update" ? 1 + this.random(3) : 0];
    for (const name of names) cells[name] = `o${number}${name}`;
    if (kind !== "insert" && key > 1e15) return; // pages wait for the key before they write more
    if (kind === "insert" && this.random(2)) cells.id = this.random(4) + 1;
    if (kind === "insert" && cells.id !== undefined && this.set.get(cells.id)) return;
    const write = { number, kind, key: kind === "insert" ? cells.id : key, cells, state: "open", applied: null };
    write.layer = this.set.write(kind, key, cells);
    this.writes.push(write);
    this.requests.push(write);
    this.set.overlay();
  }

  /** The server carries out a request, or refuses. */
  serve() {
    const [write] = this.requests.splice(this.random(this.requests.length), 1);
    if (!write) return;
    const exists = this.server.has(write.key);
    const isRefused = this.random(5) === 0 || (write.kind === "insert" ? exists : !exists);
    if (isRefused) {
      this.answers.push({ write, isRefused });
      return;
    }
    const tx = `t${write.number}`;
    const id = (write.key ??= this.nextId++);
    if (write.kind === "delete") this.change(id, null, tx);
    else {
      const row = { ...(this.server.get(id) ?? {}), ...write.cells, id };
      // Now and then the server makes something else of it, in two steps.
      if (this.random(4) === 0) {
        this.change(id, { ...row, ...Object.fromEntries(Object.keys(write.cells).map((n) => [n, n === "id" ? id : `i${write.number}${n}`])) }, tx);
        for (const name of COLUMNS) if (name in write.cells) row[name] = `n${write.number}${name}`;
      }
      this.change(id, row, tx);
      if (this.random(4) === 0 && this.server.has(1) && id !== 1) this.change(1, { ...this.server.get(1), a: `side${write.number}` }, tx);
    }
    write.applied = this.log.findLastIndex((entry) => entry.id === id && entry.tx === tx);
    this.answers.push({ write, tx: this.random(8) ? tx : null, isLost: this.random(10) === 0 });
  }

  change(id, row, tx = null) {
    const before = this.server.get(id);
    if (row === null) this.server.delete(id);
    else this.server.set(id, row);
    this.log.push({ id, row, tx, isInsert: before === undefined });
  }

  /** Somebody else writes. */
  disturb() {
    const id = this.pick([...this.server.keys(), 1, 2]);
    const number = (this.count += 1);
    if (!this.server.has(id)) this.change(id, { id, a: `x${number}a`, b: `x${number}b` });
    else if (this.random(4) === 0) this.change(id, null);
    else {
      const name = this.pick(COLUMNS);
      this.change(id, { ...this.server.get(id), [name]: `x${number}${name}` });
    }
  }

  answer() {
    const [answer] = this.answers.splice(this.random(this.answers.length), 1);
    if (!answer) return;
    const { write, tx, isRefused, isLost } = answer;
    if (isRefused || isLost) {
      write.state = "refused";
      this.set.refused(write.layer);
    } else {
      // Without its receipt an echo is only guessed, and may be taken for another.
      if (tx === null) write.state = "unknown";
      this.set.taken(write.layer, tx === null ? [] : [tx]);
    }
    this.set.overlay();
  }

  /** The stream brings a few changes, which are shown together or later. */
  stream(most = 1 + this.random(3)) {
    for (const { id, row, tx, isInsert } of this.log.slice(this.read, this.read + most)) {
      this.read += 1;
      if (row === null) this.set.drop({ id }, { tx });
      else this.set.put(row, { tx, isInsert });
    }
    if (this.random(3)) this.set.commit();
  }

  snapshot() {
    // A row that others have changed since is not known for that which an insert is waiting for.
    for (const write of this.writes) if (write.layer.made) write.state = "unknown";
    this.set.begin();
    for (const row of this.server.values()) this.set.put(row);
    this.read = this.log.length;
    this.set.end();
    this.set.commit();
  }

  /** Something has been waited for: for so long that all that is committed has come. */
  giveUp() {
    const layer = this.pick(this.set.waiting);
    if (!layer) return;
    if (layer.stage === "taken" && this.read < this.log.length) return;
    if (layer.stage === "echoed" && this.log.slice(this.read).some(({ tx }) => layer.receipts.includes(tx))) return;
    this.set.commit();
    if (layer.made) this.writes.find((write) => write.layer === layer).state = "unknown";
    this.set.giveUp(layer);
    this.set.overlay();
  }

  /** What must hold after every step. */
  check() {
    this.set.takeGone();
    for (const row of this.set.rows) this.checkRow(row);
    const guessed = new Set(this.writes.filter(({ state }) => state !== "open").map(({ cells }) => cells.a));
    const seen = this.set.rows.map(({ a }) => a).filter((a) => !guessed.has(a));
    assert.equal(new Set(seen).size, seen.length, `twice: ${seen}`);
  }

  /** A value that the page wrote is never followed by one that the server had before that. */
  checkRow(row) {
    for (const name of COLUMNS) {
      const value = row[name];
      const newest = this.writes.findLast(
        ({ seen, state, kind, layer }) =>
          (seen?.has(name) || kind === "delete") && state !== "refused" && layer.key === row.id,
      );
      const own = this.writes.find(({ cells }) => cells[name] === value);
      if (newest?.state === "open" && newest.kind !== "delete" && value !== newest.cells[name]) {
        const since = this.log.findLastIndex((entry) => entry.id === row.id && entry.row?.[name] === value);
        const isLater = own && own.number > newest.number;
        const isAfter = newest.applied !== null && since >= newest.applied;
        assert.equal(isLater || isAfter, true, `row ${row.id} shows ${name} = ${value} after ${newest.cells[name]}`);
      }
      if (own) (own.seen ??= new Set()).add(name);
    }
  }

  step() {
    const steps = { write: 4, serve: 4, answer: 4, stream: 5, disturb: 2, giveUp: 1, snapshot: 0.3 };
    let at = (this.random(1000) / 1000) * Object.values(steps).reduce((a, b) => a + b);
    for (const [name, weight] of Object.entries(steps)) {
      at -= weight;
      if (at < 0) return this[name]();
    }
  }

  /** Everything arrives. */
  finish() {
    while (this.requests.length) this.serve();
    while (this.answers.length) this.answer();
    while (this.read < this.log.length) this.stream(1);
    this.set.commit();
    for (const layer of this.set.waiting) this.set.giveUp(layer);
    this.set.commit();
  }
}

test("whatever the order of writes, answers, echoes and the changes of others: nothing flickers, and the server's rows remain", () => {
  const byId = (rows) => [...rows].sort((a, b) => a.id - b.id);
  for (let seed = 1; seed <= 1500; seed += 1) {
    const world = new World(seed);
    try {
      for (let n = 0; n < 40; n += 1) {
        world.step();
        world.check();
      }
      world.finish();
      assert.deepEqual(byId(world.set.rows), byId(world.server.values()));
      assert.deepEqual(world.set.waiting, []);
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}`;
      throw error;
    }
  }
});
