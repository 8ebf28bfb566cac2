/** Replies that a channel waits for, by the `ref` of the message they answer. */

export const REPLY_TIMEOUT_MS = 10000;

/** The connection or the join ended before the reply: the server may or may not have acted. */
export class Lost extends Error {}

/** The replies that one channel waits for. Each wait ends: by a reply, a timeout, or `end`. */
export class Replies {
  #waiting = new Map();

  /**
   * @param {string} ref
   * @returns {Promise<object>} The server's response. Rejected with its reason (the whole response
   *   is the `cause`), when no reply came in time, or by `end`.
   */
  to(ref) {
    const answer = {};
    answer.promise = new Promise((resolve, reject) => Object.assign(answer, { resolve, reject }));
    answer.timer = setTimeout(() => {
      this.#waiting.delete(ref);
      answer.reject(new Error(`no answer within ${REPLY_TIMEOUT_MS / 1000} s`));
    }, REPLY_TIMEOUT_MS);
    this.#waiting.set(ref, answer);
    return answer.promise;
  }

  /** A reply came. Ignored when nothing waits for it. */
  came(ref, { status, response }) {
    const waiting = this.#waiting.get(ref);
    if (!waiting) return;
    this.#waiting.delete(ref);
    clearTimeout(waiting.timer);
    if (status === "ok") waiting.resolve(response ?? {});
    else waiting.reject(new Error(reasonOf(response) ?? "refused", { cause: response }));
  }

  /** No more replies will come: rejects all waits. A page that does not await them sees no error. */
  end(message) {
    for (const { promise, reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      promise.catch(() => {});
      reject(new Lost(message));
    }
    this.#waiting.clear();
  }
}

/** @returns {string|undefined} The reason of an error reply. */
export function reasonOf(response) {
  const reason = typeof response === "string" ? response : response?.reason;
  return typeof reason === "string" ? reason : undefined;
}
