/** Notices that a server which owes something has fallen silent. */

/** How long a server may send nothing to a channel that is catching up. */
export const SILENCE_MS = 60000;

export class Silence {
  #timer = null;
  #onSilence;

  /** @param {() => void} onSilence */
  constructor(onSilence) {
    this.#onSilence = onSilence;
  }

  /** Something came, or is expected from now on. */
  restart() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onSilence, SILENCE_MS);
  }

  /** Nothing is expected any more. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
  }
}
