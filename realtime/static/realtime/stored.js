/** Stored broadcasts: what a channel asks for, and which of them the page has received. */

const MOST_REMEMBERED = 1000;

export class Stored {
  /** @type {?{since: number, limit?: number}} Sent with every join; null for none. */
  replay = null;
  #had = new Set();

  /**
   * @param {{replay?: {since: number|Date, limit?: number}, private?: boolean}} options Of the
   *   channel.
   * @throws {TypeError} when they are not valid.
   */
  constructor({ replay, private: isPrivate }) {
    if (!replay) return;
    if (!isPrivate) throw new TypeError("replay is for private topics: pass private: true");
    const since = Number(replay.since ?? NaN);
    if (!Number.isSafeInteger(since)) {
      throw new TypeError("replay.since must be a Date or whole milliseconds since 1970");
    }
    this.replay = { ...replay, since };
  }

  /** Whether the page has received a broadcast with this metadata before. */
  isRepeated(meta) {
    const id = meta?.id;
    if (!this.replay || typeof id !== "string") return false;
    // Only the server's repetitions are dropped: the metadata of a live broadcast may be forged.
    if (this.#had.has(id)) return meta.replayed === true;
    this.#had.add(id);
    if (this.#had.size > MOST_REMEMBERED) this.#had.delete(this.#had.values().next().value);
    return false;
  }
}
