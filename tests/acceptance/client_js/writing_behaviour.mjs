/** What a collection does with writes of its page, over any client: a part of `collectionBehaviour`. */

import assert from "node:assert/strict";
import { test } from "node:test";

/** An answer of a server, as `fetch` gives it. */
function response(tx = null, status = 200) {
  return new Response(null, { status, headers: tx === null ? {} : { "Rowcast-Transaction": tx } });
}

/** A request that is answered when the test says so. */
function request() {
  const asked = {};
  asked.write = (...what) => {
    asked.what = what;
    return new Promise((resolve, reject) => Object.assign(asked, { resolve, reject }));
  };
  return asked;
}

export function writingBehaviour({ logged, pass, row, sendSnapshot, live, returned, caughtUp }) {
  const changes = ({ told }) => told.flatMap((batch) => batch.changes.map(({ key, after }) => [key, after?.a]));

  /** A live collection of one row, and a request of its page. */
  async function writing(options) {
    const made = await live([{ id: 1, a: "old" }], options);
    return { ...made, asked: request() };
  }

  test("a write is shown at once, and its echo is no further change", async () => {
    const it = await writing();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    assert.deepEqual(it.collection.get(1), { id: 1, a: "new" });
    assert.deepEqual(it.told[0].changes[0].own, true);
    assert.deepEqual(it.asked.what, [1, { a: "new" }]);
    assert.deepEqual([write.status, it.collection.isPending(1)], ["sending", true]);
    it.asked.resolve(response("t1"));
    await pass();
    assert.deepEqual([write.status, write.receipts], ["taken", ["t1"]]);
    row("UPDATE", { id: 1, a: "new" }, { seq: 11, old_record: {}, tx: "t1" });
    await pass();
    assert.deepEqual([write.status, it.collection.isPending(1)], ["confirmed", false]);
    assert.equal(await write.confirmed, true);
    assert.equal((await write.taken).status, 200);
    assert.deepEqual(changes(it), [[1, "new"]]);
  });

  test("an echo that comes before the answer confirms the write with the answer", async () => {
    const it = await writing();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    row("UPDATE", { id: 1, a: "new" }, { seq: 11, old_record: {}, tx: "t1" });
    await pass();
    row("UPDATE", { id: 1, a: "of another" }, { seq: 12, old_record: {} });
    await pass();
    assert.equal(write.status, "sending");
    it.asked.resolve("t1");
    await pass(200);
    assert.equal(await write.confirmed, true);
    assert.deepEqual(changes(it), [[1, "new"], [1, "of another"]]);
  });

  test("a row is inserted by a key that stands in, and takes the server's in one batch", async () => {
    const it = await writing({ order: "id" });
    const write = it.collection.insert({ a: "new" }, it.asked.write);
    const made = write.key;
    assert.deepEqual(it.asked.what, [{ a: "new" }]);
    assert.deepEqual(it.collection.rows.map(({ a }) => a), ["old", "new"]);
    row("INSERT", { id: 7, a: "new" }, { seq: 11, tx: "t1" });
    await pass();
    assert.equal(it.collection.size, 2);
    it.asked.resolve(response("t1", 201));
    await pass();
    assert.equal(write.key, 7);
    assert.deepEqual(it.collection.rows.map(({ id }) => id), [1, 7]);
    assert.equal(it.collection.has(made), false);
    assert.equal(it.told.length, 2);
    assert.equal(await write.confirmed, true);
  });

  test("a deleted row is gone at once, and comes back when the server refuses", async () => {
    const it = await writing();
    const write = it.collection.delete(1, it.asked.write);
    assert.deepEqual([it.collection.size, it.asked.what], [0, [1]]);
    row("UPDATE", { id: 1, a: "of another" }, { seq: 11, old_record: {} });
    await pass();
    assert.equal(it.collection.size, 0);
    const refused = assert.rejects(write.confirmed, { name: "RefusedError", status: 403 });
    it.asked.resolve(response(null, 403));
    await pass();
    await refused;
    assert.equal(write.status, "refused");
    assert.deepEqual(it.collection.rows, [{ id: 1, a: "of another" }]);
  });

  test("a delete that is echoed leaves nothing behind", async () => {
    const it = await writing();
    const write = it.collection.delete(1, it.asked.write);
    row("DELETE", { id: 1 }, { seq: 11, tx: "t1" });
    it.asked.resolve("t1");
    await pass();
    assert.equal(await write.confirmed, true);
    assert.deepEqual(changes(it), [[1, undefined]]);
  });

  test("a request that fails is taken back, and an error that nobody asks for is a line of the console", async () => {
    const it = await writing();
    it.collection.update(1, { a: "new" }, it.asked.write);
    it.asked.reject(new TypeError("Failed to fetch"));
    await pass();
    assert.deepEqual(it.collection.get(1), { id: 1, a: "old" });
    assert.deepEqual(logged(), ["task: what was written is taken back: Failed to fetch"]);
    const write = it.collection.update(1, { a: "newer" }, () => {
      throw new Error("no token");
    });
    const refused = assert.rejects(write.taken, /no token/);
    await pass();
    await refused;
    assert.deepEqual(it.collection.get(1), { id: 1, a: "old" });
    assert.equal(logged().length, 1);
  });

  test("a write of which the stream shows nothing gives way to what the server has", async () => {
    const it = await writing();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    it.asked.resolve(response("t1"));
    await pass(4000);
    assert.equal(it.collection.get(1).a, "new");
    await pass(2000);
    assert.equal(it.collection.get(1).a, "old");
    assert.equal(await write.confirmed, false);
  });

  test("without receipts an echo is known by its values", async () => {
    const it = await writing();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    it.asked.resolve({ any: "thing" });
    await pass();
    assert.equal(write.status, "taken");
    row("UPDATE", { id: 1, a: "new" }, { seq: 11, old_record: {} });
    await pass();
    assert.equal(write.status, "confirmed");
    assert.deepEqual(changes(it), [[1, "new"]]);
  });

  test("a write outlives a lost connection, and is confirmed by what the server sends then", async () => {
    const it = await writing();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    it.asked.resolve(response("t1"));
    await pass();
    await returned();
    await pass(20000);
    assert.equal(it.collection.get(1).a, "new");
    sendSnapshot([{ id: 1, a: "of another, later" }], { seq: 30 });
    caughtUp();
    await pass();
    assert.equal(write.status, "confirmed");
    assert.equal(it.collection.get(1).a, "of another, later");
  });

  test("a write is shown while the server sends its rows again, and over them", async () => {
    const it = await writing();
    await returned();
    const write = it.collection.update(1, { a: "new" }, it.asked.write);
    assert.equal(it.collection.get(1).a, "new");
    sendSnapshot([{ id: 1, a: "older" }], { seq: 30 });
    caughtUp();
    await pass();
    assert.equal(it.collection.get(1).a, "new");
    it.asked.resolve(response("t1"));
    row("UPDATE", { id: 1, a: "new" }, { seq: 31, old_record: {}, tx: "t1" });
    await pass();
    assert.equal(write.status, "confirmed");
    assert.equal(it.told.every(({ changes: told }) => told.every(({ after }) => after.a === "new")), true);
  });

  test("what writes, where a call does not say it, is an option; without either it is an error", async () => {
    const asked = request();
    const it = await live([{ id: 1, a: "old" }], { writes: { update: asked.write } });
    it.collection.update(1, { a: "new" });
    assert.deepEqual(asked.what, [1, { a: "new" }]);
    assert.throws(() => it.collection.delete(1), /task: delete takes a function that writes, or the option "writes"/);
    assert.throws(() => it.collection.update(1, { id: 2 }), /does not change id/);
    assert.equal(it.collection.size, 1);
  });

  test("a listener that writes is not interrupted by what it wrote", async () => {
    const it = await writing();
    const heard = [];
    it.collection.subscribe(() => {
      if (heard.length === 0) it.collection.update(1, { a: "newer" }, it.asked.write);
    });
    it.collection.subscribe((batch) => heard.push(...batch.changes.map(({ after }) => after.a)));
    row("UPDATE", { id: 1, a: "new" }, { seq: 11, old_record: {} });
    await pass();
    assert.deepEqual(heard, ["new", "newer"]);
  });

  test("a transaction can be waited for: before it comes, after it, and in vain", async () => {
    const { collection } = await writing();
    const before = collection.awaitTx("t1");
    const several = collection.awaitTx("t0, t1");
    const inVain = collection.awaitTx("t2", 1000);
    row("UPDATE", { id: 1, a: "new" }, { seq: 11, old_record: {}, tx: "t1" });
    let isShown = false;
    before.then(() => (isShown = collection.get(1).a === "new"));
    await pass();
    assert.deepEqual([isShown, await several, await collection.awaitTx("t1")], [true, true, true]);
    await pass(1000);
    assert.equal(await inVain, false);
    const bySnapshot = collection.awaitTx("t3", 60000);
    sendSnapshot([{ id: 1, a: "newer" }], { seq: 30 });
    await pass();
    assert.equal(await bySnapshot, true);
  });

  test("closed, nothing is waited for any more", async () => {
    const it = await writing();
    const taken = it.collection.update(1, { a: "new" }, () => "t1");
    const sending = it.collection.update(1, { a: "newer" }, it.asked.write);
    const waited = it.collection.awaitTx("t9");
    await pass();
    it.collection.close();
    assert.deepEqual([await taken.confirmed, await waited], [false, false]);
    it.asked.resolve("t2");
    assert.equal(await sending.confirmed, false);
    assert.equal(it.collection.get(1).a, "newer");
  });
}
