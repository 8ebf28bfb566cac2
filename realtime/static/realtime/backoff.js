/** How long to wait before the next attempt. */

const BACKOFF_MS = [1000, 2000, 5000, 10000];

/** Rising waits with jitter. */
export class Backoff {
  #attempt = 0;
  #random;

  constructor(random) {
    this.#random = random;
  }

  next() {
    const base = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)];
    this.#attempt += 1;
    return Math.round(base * (0.75 + this.#random() / 2));
  }

  reset() {
    this.#attempt = 0;
  }
}
