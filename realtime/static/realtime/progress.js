/**
 * How far a channel, and each of its bindings, has come in the server's log. Pure: it is told what
 * the server sent, and knows what to ask for after a loss and which changes the page has already.
 *
 * The cursor says "everything up to here was received". So it moves only with what proves that: a
 * change, because changes come in order; the end of a replay; the head in a heartbeat's answer,
 * which is sent after all changes up to it unless a replay or a snapshot is still under way.
 */
export class Progress {
  #epoch = null;
  #seq = null;
  #joinEpoch = null;
  #newEpochIsTold = false;
  #start;
  #places;
  #oneFrameEach;
  #pending = new Set();

  /**
   * @param {object[]} configs The channel's bindings of changes, in order.
   * @param {string|number|null} start Where the page wants to begin; null: now.
   */
  constructor(configs, start) {
    this.#start = start;
    this.#places = configs.map((config) => ({
      config, from: 0, seq: null, rows: new Set(), had: new Set(),
    }));
    // A change is one frame, unless bindings want different columns of it, or one change of
    // permissions brings many rows: then the next frame may be of the same change.
    const selects = new Set(configs.map((config) => JSON.stringify(config.select ?? null)));
    this.#oneFrameEach = selects.size < 2 && !configs.some((config) => config.live);
    const named = /^([\w-]+):(\d+)$/.exec(start ?? "");
    // Where a binding begins elsewhere, it is not true that everything up to here is known.
    if (named && configs.every((config) => config.since == null)) {
      this.#restart(named[1], Number(named[2]));
    }
  }

  /** @returns {?string} "<epoch>:<seq>"; null while no place in the log is known. */
  get cursor() {
    return this.#epoch === null || this.#seq === null ? null : `${this.#epoch}:${this.#seq}`;
  }

  /** @returns {boolean} Whether a replay or a snapshot is under way. */
  get pending() {
    return this.#pending.size > 0;
  }

  /** What to join with: each binding goes on where it was, or begins where the page said. */
  ask() {
    return this.#places.map(({ config, from, seq }) => {
      // A snapshot that was cut off is asked for anew: its rows do not come in order. One that is
      // complete is what the server falls back on where it cannot resume.
      if (config.snapshot && this.#pending.has("snapshot")) return config;
      const known = seq !== null && this.cursor !== null;
      const since = known
        ? `${this.#epoch}:${Math.max(from, this.#seq)}`
        : (config.since ?? this.#start);
      return since == null ? config : { ...config, since };
    });
  }

  /**
   * The join was granted.
   *
   * @param {object[]} asked What `ask` said.
   * @param {{epoch?: string, seq?: number}} head As the reply names it.
   */
  joined(asked, { epoch = null, seq = null }) {
    this.#joinEpoch = epoch;
    for (const place of this.#places) place.had = new Set(place.rows);
    this.#pending.clear();
    asked.forEach((config, index) => {
      if (config.since != null) this.#pending.add("replay");
      else if (config.snapshot) this.#pending.add("snapshot");
      // Begins at the head, while others are still on their way there.
      else if (epoch !== null) this.#put(this.#places[index], seq, seq);
    });
    if (!this.pending) this.#restart(epoch, seq);
  }

  /**
   * A row of a snapshot has come, or the end of one.
   *
   * @returns {boolean} Whether it is the beginning of one that nobody waited for: the server cannot
   *   go on from where the channel was, and sends all its rows anew.
   */
  pictured() {
    if (this.#pending.has("snapshot")) return false;
    this.#pending.add("snapshot");
    this.#restart(this.#joinEpoch, null);
    this.#newEpochIsTold = true;
    return true;
  }

  /** A change of this seq has come, and with it everything before. */
  passed(seq) {
    if (this.#pending.has("snapshot") || !Number.isInteger(seq)) return;
    this.#epoch ??= this.#joinEpoch;
    this.#seq = Math.max(this.#seq ?? 0, this.#oneFrameEach ? seq : seq - 1);
  }

  /** Whether the page does not have this change yet from binding number `index`. */
  isNew(index, { seq, snapshot, type, schema, table, record, old_record }) {
    if (snapshot || !Number.isInteger(seq)) return true;
    const place = this.#places[index];
    if (place.seq !== null && seq < place.seq) return false;
    const isNext = seq !== place.seq;
    if (isNext) this.#put(place, seq);
    if (!place.config.live) return isNext;
    // One change may move many rows of a live set, all with its seq, and a cut may have come
    // between them. Only what came over an earlier join is a repetition.
    const row = JSON.stringify([type, schema, table, record ?? old_record]);
    place.rows.add(row);
    return !place.had.has(row);
  }

  /** The server has sent all of the "replay" or the "snapshot", up to `seq`. */
  ended(what, seq) {
    this.#pending.delete(what);
    if (this.pending || !Number.isInteger(seq)) return;
    this.#epoch = this.#joinEpoch;
    this.#reached(seq);
  }

  /** Changes were missed for good; from `seq` on the channel has everything again. */
  resynced(seq) {
    this.#pending.clear();
    this.#restart(this.#joinEpoch, seq ?? null);
    this.#newEpochIsTold = true;
  }

  /** A heartbeat was answered with the head. */
  heard({ epoch, seq }) {
    if (this.pending || this.cursor === null || !Number.isInteger(seq)) return;
    // A new log is told of by a resync or a snapshot, which do not name it; unless there was one,
    // a strange epoch proves nothing.
    if (epoch === this.#epoch) this.#reached(seq);
    else if (this.#newEpochIsTold) this.#restart(epoch, seq);
    else return;
    this.#newEpochIsTold = false;
  }

  #reached(seq) {
    this.#seq = Math.max(this.#seq ?? 0, seq);
    for (const place of this.#places) {
      if (place.seq === null || place.seq < seq) this.#put(place, seq);
    }
  }

  #restart(epoch, seq) {
    this.#epoch = epoch;
    this.#seq = seq;
    for (const place of this.#places) this.#put(place, seq);
  }

  #put(place, seq, from = 0) {
    place.seq = seq;
    place.from = from;
    place.rows.clear();
    place.had.clear();
  }
}
