/** Answers that are waited for, by the `ref` of what was asked. */

export const REPLY_TIMEOUT_MS = 10000;

/** The connection or the join ended before the answer came: it may or may not have been done. */
export class Lost extends Error {}

/** What waits for an answer on one channel. Each wait ends: answered, too late, or all at once. */
export class Replies {
  #waiting = new Map();

  /**
   * @param {string} ref
   * @returns {Promise<object>} What the server answered; rejected with its reason (and with all it
   *   said as `cause`), or because no answer came in time, or by `end`.
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

  /** An answer came; one that nobody waits for is no news. */
  came(ref, { status, response }) {
    const waiting = this.#waiting.get(ref);
    if (!waiting) return;
    this.#waiting.delete(ref);
    clearTimeout(waiting.timer);
    if (status === "ok") waiting.resolve(response ?? {});
    else waiting.reject(new Error(reasonOf(response) ?? "refused", { cause: response }));
  }

  /** No more answers will come: all waits are rejected. To a page that awaits none it is no fault. */
  end(message) {
    for (const { promise, reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      promise.catch(() => {});
      reject(new Lost(message));
    }
    this.#waiting.clear();
  }
}

/** @returns {string|undefined} Why the server said no. */
export function reasonOf(response) {
  const reason = typeof response === "string" ? response : response?.reason;
  return typeof reason === "string" ? reason : undefined;
}
