/**
 * The position of a channel, and of each of its bindings, in the server's log. Pure: it takes what
 * the server sent, and decides what to ask for after a loss and which changes the page has already.
 *
 * The cursor means "everything up to here was received". So only these move it: a change, because
 * changes come in order; the end of a replay; and the head in a heartbeat's reply, which is sent
 * after all changes up to it unless a replay or a snapshot is still under way.
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
  #wasJoined = false;
  // Whose rows the page has, as the server marks them; null while that is not known. Another token
  // may be of somebody else until the server has said whose it is.
  #subject = null;
  #subjectBefore = null;

  /**
   * @param {object[]} configs The channel's bindings of changes, in order.
   * @param {string|number|null} start The position to begin at; null for the present head.
   */
  constructor(configs, start) {
    this.#start = start;
    this.#places = configs.map((config) => ({
      config, from: 0, seq: null, rows: new Set(), had: new Set(),
    }));
    // A change is one frame, unless bindings select different columns, or one change of permissions
    // brings many rows: then the next frame may belong to the same change.
    const selects = new Set(configs.map((config) => JSON.stringify(config.select ?? null)));
    this.#oneFrameEach = selects.size < 2 && !configs.some((config) => config.live);
    const named = /^([\w-]+):(\d+)$/.exec(start ?? "");
    // With a binding that begins elsewhere, not everything up to here has been received.
    if (named && configs.every((config) => config.since == null)) {
      this.#restart(named[1], Number(named[2]));
    }
  }

  /** @returns {?string} "<epoch>:<seq>"; null while no position is known. */
  get cursor() {
    return this.#epoch === null || this.#seq === null ? null : `${this.#epoch}:${this.#seq}`;
  }

  /** @returns {boolean} Whether a replay or a snapshot is under way. */
  get pending() {
    return this.#pending.size > 0;
  }

  /** The bindings to join with: each continues at its position, or begins where the page said. */
  ask() {
    return this.#places.map(({ config, from, seq }) => {
      // An incomplete snapshot is asked for again, because its rows come in no order. After a
      // complete one the server sends another where it cannot resume.
      if (config.snapshot && this.#pending.has("snapshot")) return config;
      const known = seq !== null && this.cursor !== null;
      const since = known
        ? `${this.#epoch}:${Math.max(from, this.#seq)}`
        : (config.since ?? this.#start);
      return since == null ? config : { ...config, since };
    });
  }

  /**
   * Whether the server would resume for somebody else than those whose rows the page has: it cannot
   * know what the page shows, so the rows that only the former may see would stay.
   *
   * @param {object[]} asked The result of `ask`.
   * @param {{subject?: string}} reply
   */
  isOfAnother(asked, { subject = null }) {
    return this.#wasJoined && subject !== this.#subject && asked.some(({ since }) => since != null);
  }

  /** Another token is sent: whose it is, the server has to say. */
  tokenSent() {
    this.#subjectBefore ??= this.#subject;
    this.#subject = null;
  }

  /**
   * The server has taken a token, which is of this subject.
   *
   * @returns {boolean} Whether it is another subject than that whose rows the page has.
   */
  tokenTaken(subject) {
    const isAnother = subject !== this.#subjectBefore;
    this.#subject = isAnother ? null : subject;
    this.#subjectBefore = this.#subject;
    return isAnother;
  }

  /**
   * The join was granted.
   *
   * @param {object[]} asked The result of `ask`.
   * @param {{epoch?: string, seq?: number, subject?: string}} reply The head, and whose rows come.
   */
  joined(asked, { epoch = null, seq = null, subject = null }) {
    this.#wasJoined = true;
    this.#subject = subject;
    this.#subjectBefore = null;
    this.#joinEpoch = epoch;
    for (const place of this.#places) place.had = new Set(place.rows);
    this.#pending.clear();
    asked.forEach((config, index) => {
      if (config.since != null) this.#pending.add("replay");
      else if (config.snapshot) this.#pending.add("snapshot");
      // This binding begins at the head; others may still be behind it.
      else if (epoch !== null) this.#move(this.#places[index], seq, seq);
    });
    if (!this.pending) this.#restart(epoch, seq);
  }

  /**
   * The beginning, a row or the end of a snapshot came.
   *
   * @returns {boolean} Whether a snapshot begins that was not expected: the server cannot resume at
   *   the channel's position and sends all rows again.
   */
  snapshotCame() {
    if (this.#pending.has("snapshot")) return false;
    this.#pending.add("snapshot");
    this.#restart(this.#joinEpoch, null);
    this.#newEpochIsTold = true;
    return true;
  }

  /** A change with this seq came; everything before it has come too. */
  passed(seq) {
    if (this.#pending.has("snapshot") || !Number.isInteger(seq)) return;
    this.#epoch ??= this.#joinEpoch;
    this.#seq = Math.max(this.#seq ?? 0, this.#oneFrameEach ? seq : seq - 1);
  }

  /** Whether the page has not had this change from binding number `index` yet. */
  isNew(index, { seq, snapshot, type, schema, table, record, old_record }) {
    if (snapshot || !Number.isInteger(seq)) return true;
    const place = this.#places[index];
    if (place.seq !== null && seq < place.seq) return false;
    const isNext = seq !== place.seq;
    if (isNext) this.#move(place, seq);
    if (!place.config.live) return isNext;
    // One change may move many rows of a live set, all with its seq, and the connection may be lost
    // between them. Only a row that came over an earlier join is a repetition.
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

  /** Changes were lost; from `seq` on the channel has everything again. */
  resynced(seq) {
    this.#pending.clear();
    this.#restart(this.#joinEpoch, seq ?? null);
    this.#newEpochIsTold = true;
  }

  /** The head in the reply to a heartbeat. */
  head({ epoch, seq }) {
    if (this.pending || this.cursor === null || !Number.isInteger(seq)) return;
    // A resync or a snapshot announces a new epoch without naming it. Without one, another epoch in
    // a heartbeat proves nothing.
    if (epoch === this.#epoch) this.#reached(seq);
    else if (this.#newEpochIsTold) this.#restart(epoch, seq);
    else return;
    this.#newEpochIsTold = false;
  }

  #reached(seq) {
    this.#seq = Math.max(this.#seq ?? 0, seq);
    for (const place of this.#places) {
      if (place.seq === null || place.seq < seq) this.#move(place, seq);
    }
  }

  #restart(epoch, seq) {
    this.#epoch = epoch;
    this.#seq = seq;
    for (const place of this.#places) this.#move(place, seq);
  }

  #move(place, seq, from = 0) {
    place.seq = seq;
    place.from = from;
    place.rows.clear();
    place.had.clear();
  }
}
