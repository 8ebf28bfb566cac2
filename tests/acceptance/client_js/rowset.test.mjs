/** The rows of a collection, without any connection. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { loadClient } from "./server.mjs";

const { KeyError, RowSet } = await loadClient("rowset.js");

/** A set after a snapshot of these rows. */
function setOf(rows, options) {
  const set = new RowSet(options);
  snapshot(set, rows);
  return set;
}

function snapshot(set, rows) {
  set.begin();
  for (const row of rows) set.put(row);
  set.end();
  return set.commit();
}

const ids = (set) => set.rows.map(({ id }) => id);

test("nothing is shown before it is committed", () => {
  const set = setOf([]);
  set.put({ id: 1 });
  assert.equal(set.size, 0);
  set.commit();
  assert.equal(set.size, 1);
  assert.deepEqual(set.get(1), { id: 1 });
});

test("a commit says what came, changed and went", () => {
  const set = setOf([{ id: 1, a: 1 }, { id: 2, a: 1 }]);
  set.put({ id: 3, a: 1 });
  set.put({ id: 2, a: 2 });
  set.drop({ id: 1 });
  assert.deepEqual(set.commit(), [
    { key: 3, before: undefined, after: { id: 3, a: 1 } },
    { key: 2, before: { id: 2, a: 1 }, after: { id: 2, a: 2 } },
    { key: 1, before: { id: 1, a: 1 }, after: undefined },
  ]);
  assert.deepEqual(set.commit(), []);
});

test("a row that came and went in one batch was never there", () => {
  const set = setOf([]);
  set.put({ id: 1 });
  set.drop({ id: 1 });
  assert.deepEqual(set.commit(), []);
});

test("a row that goes and is not there is no news", () => {
  const set = setOf([]);
  set.drop({ id: 1 });
  assert.deepEqual(set.commit(), []);
});

test("a snapshot replaces the rows when it is complete, and leaves those alone that are the same", () => {
  const set = setOf([{ id: 1, a: { b: [1] } }, { id: 2 }]);
  const same = set.get(1);
  set.begin();
  set.put({ a: { b: [1] }, id: 1 });
  set.put({ id: 3 });
  assert.deepEqual(set.commit(), []);
  assert.deepEqual(ids(set), [1, 2]);
  set.end();
  assert.deepEqual(
    set.commit().map(({ key, after }) => [key, after !== undefined]),
    [[2, false], [3, true]],
  );
  assert.deepEqual(ids(set), [1, 3]);
  assert.equal(set.get(1), same);
});

test("a snapshot that is not completed counts for nothing", () => {
  const set = setOf([{ id: 1 }]);
  set.begin();
  set.put({ id: 2 });
  snapshot(set, [{ id: 3 }]);
  assert.deepEqual(ids(set), [3]);
});

test("what was noted before a snapshot is in it, or is no more", () => {
  const set = setOf([{ id: 1 }]);
  set.put({ id: 2 });
  snapshot(set, [{ id: 1 }]);
  assert.deepEqual(ids(set), [1]);
});

test("a snapshot of the same rows changes nothing, and the array of rows stays the same", () => {
  const set = setOf([{ id: 1 }]);
  const rows = set.rows;
  assert.deepEqual(snapshot(set, [{ id: 1 }]), []);
  assert.equal(set.rows, rows);
});

test("a cell that is withheld now is not kept from before", () => {
  const set = setOf([{ id: 1, text: "short" }]);
  set.put({ id: 1 });
  set.commit();
  assert.deepEqual(set.get(1), { id: 1 });
});

test("a key is the same as a number and as its text", () => {
  const set = setOf([{ id: 7 }]);
  assert.equal(set.get("7"), set.get(7));
  assert.equal(set.get(8), undefined);
});

test("a key of several columns is an array, or an object that has them", () => {
  const key = ["tenant", "number"];
  const set = setOf([{ tenant: 1, number: 2 }, { tenant: 1, number: 3 }, { tenant: 12, number: 3 }], { key });
  assert.equal(set.size, 3);
  assert.deepEqual(set.get([1, 3]), { tenant: 1, number: 3 });
  assert.deepEqual(set.get({ number: 3, tenant: 12 }), { tenant: 12, number: 3 });
  set.drop({ tenant: 1, number: 2 });
  assert.deepEqual(set.commit()[0].key, [1, 2]);
});

test("rows that are here are found by the key that a snapshot names", () => {
  const set = setOf([{ id: 1, code: "a" }, { id: 2, code: "b" }, { id: 3 }], { order: "id" });
  const same = set.get(1);
  set.begin(["code"]);
  assert.deepEqual(ids(set), [1, 2, 3]);
  assert.equal(set.get("a"), same);
  set.put({ id: 1, code: "a" });
  set.put({ id: 4, code: "c" });
  set.end();
  const changes = set.commit();
  assert.deepEqual(
    changes.map(({ before, after }) => [before?.id, after?.id]),
    [[2, undefined], [3, undefined], [undefined, 4]],
  );
  assert.deepEqual(ids(set), [1, 4]);
  assert.equal(set.get("a"), same);
});

test("a key that was given is kept", () => {
  const set = setOf([{ id: 1, code: "a" }], { key: "code" });
  set.begin(["id"]);
  assert.deepEqual(set.get("a"), { id: 1, code: "a" });
});

test("a row under another key is another row", () => {
  const set = setOf([{ id: 1 }]);
  set.drop({ id: 1 });
  set.put({ id: 2 });
  set.commit();
  assert.deepEqual(ids(set), [2]);
});

test("a row without its key is refused, with what to do", () => {
  const set = new RowSet({ key: ["tenant", "id"] });
  assert.throws(() => set.put({ id: 1, name: "x" }), (error) => {
    assert.ok(error instanceof KeyError);
    assert.match(error.message, /without tenant .*columns: id, name.*option "key"/);
    return true;
  });
});

test("two rows of one snapshot with the same key are refused", () => {
  const set = new RowSet();
  set.begin();
  set.put({ tenant: 1, id: 1 });
  assert.throws(() => set.put({ tenant: 2, id: 1 }), /two rows have id = 1.*option "key"/);
});

test("rows are in the order of a column, by key where that is equal, and nothing comes last", () => {
  const rows = [{ id: 1, a: null }, { id: 12, a: 2 }, { id: 3, a: 2 }, { id: 4, a: -1 }, { id: 5 }];
  assert.deepEqual(ids(setOf(rows, { order: "a" })), [4, 3, 12, 1, 5]);
  assert.deepEqual(ids(setOf(rows, { order: "-a" })), [3, 12, 4, 1, 5]);
});

test("rows are in the order of several columns, or of a comparison", () => {
  const rows = [{ id: 1, a: "x", b: 1 }, { id: 2, a: "x", b: 2 }, { id: 3, a: "B", b: 3 }];
  assert.deepEqual(ids(setOf(rows, { order: ["-a", "-b"] })), [2, 1, 3]);
  assert.deepEqual(ids(setOf(rows, { order: (a, b) => b.id - a.id })), [3, 2, 1]);
});

test("without an order rows are as they came", () => {
  assert.deepEqual(ids(setOf([{ id: 3 }, { id: 1 }])), [3, 1]);
});

test("whatever comes, rows are in order and those of a plain map", () => {
  // A generator of fixed seed: x -> 48271 x mod (2^31 - 1).
  let state = 13;
  const draw = (below) => (state = (state * 48271) % 2147483647) % below;
  const set = new RowSet({ order: ["a", "-b"] });
  const expected = new Map();
  let noted = new Map(expected);
  for (let step = 0; step < 5000; step += 1) {
    const id = draw(60);
    const kind = draw(20);
    if (kind < 11) {
      const row = { id, a: draw(5) || null, b: draw(9) };
      set.put(row);
      noted.set(id, row);
    } else if (kind < 17) {
      set.drop({ id });
      noted.delete(id);
    } else if (kind === 17) {
      const rows = Array.from({ length: draw(40) }, (_, at) => ({ id: at, a: draw(5), b: draw(9) }));
      snapshot(set, rows);
      noted = new Map(rows.map((row) => [row.id, row]));
    }
    if (kind >= 16) {
      set.commit();
      const rows = [...noted.values()].sort(
        (x, y) => (x.a === null) - (y.a === null) || x.a - y.a || y.b - x.b || x.id - y.id,
      );
      assert.deepEqual(set.rows, rows);
      assert.equal(set.size, rows.length);
      for (const row of rows) assert.equal(set.get(row.id), set.rows[rows.indexOf(row)]);
    }
  }
});

test("rows that were replaced or went are not kept, also while nobody reads the rows in order", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  const set = setOf([{ id: 1, a: 0 }], { order: "a" });
  const former = [];
  for (let a = 1; a <= 50; a += 1) {
    const rows = [{ id: 1, a }, { id: 1 + a, a }];
    former.push(...rows.map((row) => new WeakRef(row)));
    rows.forEach((row) => set.put(row));
    set.commit();
    set.drop({ id: 1 + a });
    set.commit();
  }
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  // The one that is there, and what the engine itself still holds of the last turn.
  assert.ok(former.filter((row) => row.deref() !== undefined).length < 10);
  assert.deepEqual(set.rows, [{ id: 1, a: 50 }]);
});
