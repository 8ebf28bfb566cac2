/** Stored broadcasts: which a channel asks for, and which of them the page has had. */

const MOST_REMEMBERED = 1000;

export class Stored {
  /** @type {?{since: number, limit?: number}} What every join asks for; null: none. */
  replay = null;
  #had = new Set();

  /**
   * @param {import("./channel.js").ChannelOptions} options
   * @throws {TypeError} when they ask for what no server gives.
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

  /** Whether a broadcast with this metadata is one that the page has had. */
  isRepeated(meta) {
    const id = meta?.id;
    if (!this.replay || typeof id !== "string") return false;
    // Only the server's own repetitions are dropped: others may write into a live one what they like.
    if (this.#had.has(id)) return meta.replayed === true;
    this.#had.add(id);
    if (this.#had.size > MOST_REMEMBERED) this.#had.delete(this.#had.values().next().value);
    return false;
  }
}
