/** Receipts of writes: what an answer says of them, and which of them the stream has shown. */

const HEADER = "Rowcast-Transaction";
const MOST_REMEMBERED = 1000;

/** What a server answered that did not take a write. */
export class RefusedError extends Error {
  #response;

  /** @param {Response} response */
  constructor(response) {
    super(
      response.type === "opaqueredirect"
        ? "the server redirected the write, and did not carry it out: is the session over?"
        : `the server refused the write: ${response.status} ${response.statusText ?? ""}`.trim(),
    );
    this.name = "RefusedError";
    this.#response = response;
  }

  /** @returns {Response} Its body has not been read. */
  get response() {
    return this.#response;
  }

  /** @returns {number} 0 of a redirection. */
  get status() {
    return this.#response.status;
  }
}

/**
 * The receipts in what a function that writes gives back.
 *
 * @param {any} result A `Response` or what has headers like one, or a receipt.
 * @returns {string[]} One for each transaction of the request.
 * @throws {RefusedError} when it is a Response of a request that was refused.
 */
export function receiptsIn(result) {
  if (typeof result === "string") return listed(result);
  if (result?.ok === false && typeof result.status === "number") throw new RefusedError(result);
  const { headers } = result ?? {};
  return typeof headers?.get === "function" ? listed(headers.get(HEADER) ?? "") : [];
}

/** The header names several transactions with commas between. */
function listed(text) {
  return text.split(",").map((one) => one.trim()).filter(Boolean);
}

function forgetOldest(receipts) {
  while (receipts.size > MOST_REMEMBERED) receipts.delete(receipts.values().next().value);
}

/** Transactions that a stream has shown, and those who wait for one. */
export class Receipts {
  #noted = new Set();
  #shown = new Set();
  #waiting = new Set();

  /** A change of this transaction came, and is not shown yet. */
  note(tx) {
    this.#noted.add(tx);
    forgetOldest(this.#noted);
  }

  /** A snapshot begins, which has all that is committed: what is waited for is shown with it. */
  cover() {
    for (const one of this.#waiting) one.isCovered = true;
  }

  /**
   * What was noted is shown.
   *
   * @param {boolean} isSnapshot Whether a snapshot is.
   */
  show(isSnapshot) {
    for (const tx of this.#noted) {
      this.#shown.delete(tx);
      this.#shown.add(tx);
    }
    for (const one of [...this.#waiting]) {
      if ((isSnapshot && one.isCovered) || one.receipts.some((tx) => this.#noted.has(tx))) one.end(true);
    }
    this.#noted.clear();
    forgetOldest(this.#shown);
  }

  /**
   * @param {string} text A receipt, or several as the header has them.
   * @param {number} timeout Milliseconds.
   * @returns {Promise<boolean>} True once a change of one of them is shown, false when none was in time.
   */
  wait(text, timeout) {
    const receipts = listed(text);
    if (receipts.length === 0) return Promise.resolve(false);
    if (receipts.some((tx) => this.#shown.has(tx))) return Promise.resolve(true);
    return new Promise((resolve) => {
      const one = { receipts, isCovered: false };
      one.end = (isShown) => {
        clearTimeout(one.timer);
        this.#waiting.delete(one);
        resolve(isShown);
      };
      one.timer = setTimeout(() => one.end(false), timeout);
      this.#waiting.add(one);
    });
  }

  /** Nothing more comes. */
  close() {
    for (const one of [...this.#waiting]) one.end(false);
  }
}
