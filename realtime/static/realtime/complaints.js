/** What the developer is told on the console. */

/** Tells each thing once. Texts that differ in numbers only are one thing. */
export class Complaints {
  #about;
  #told = new Set();

  /** @param {string} about What the texts are about; stands before each. */
  constructor(about) {
    this.#about = about;
  }

  /** @param {string} text */
  add(text) {
    const kind = text.replace(/\b\d+\b/g, "0");
    if (this.#told.has(kind)) return;
    this.#told.add(kind);
    console.error(`${this.#about}: ${text}`);
  }
}
