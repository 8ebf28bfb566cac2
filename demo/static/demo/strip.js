/** The strip at the foot: the state of the connection, and each frame's seq and latency. */

const KEPT = 50;
const MEDIAN_OF = 20;

export class Strip {
  #link;
  #text;
  #median;
  #line;
  #body;
  #latencies = [];
  #liveSince = Infinity;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#link = root.querySelector(".link");
    this.#text = root.querySelector(".link-text");
    this.#median = root.querySelector(".median");
    this.#line = root.querySelector(".frames");
    this.#body = root.querySelector("tbody");
  }

  /**
   * Shows that the stream is not live, and why. Latencies of what arrives meanwhile mean nothing.
   *
   * @param {"connecting"|"closed"} status
   * @param {string} text
   */
  say(status, text) {
    this.#liveSince = Infinity;
    this.#show(status, text);
  }

  #show(status, text) {
    this.#link.dataset.status = status;
    if (this.#text.textContent !== text) this.#text.textContent = text;
  }

  /** Changes arrive as they are committed, from now on if they did not before. */
  live() {
    if (this.#liveSince < Infinity) return;
    this.#liveSince = Date.now();
    this.#show("open", "Live");
  }

  /** @param {import("../realtime/client.js").Change} change */
  add(change) {
    const latency = this.#latencyOf(change);
    if (latency !== null) {
      this.#latencies = [latency, ...this.#latencies].slice(0, MEDIAN_OF);
      const sorted = [...this.#latencies].sort((a, b) => a - b);
      this.#median.textContent = `${sorted[Math.floor(sorted.length / 2)]} ms`;
      this.#median.prepend(wideOnly("median "));
    }
    const shown = latency === null ? "–" : `${latency} ms`;
    const table = change.table.replace("demo_", "");
    const id = change.new.id ?? change.old.id;
    const frame = document.createElement("span");
    frame.className = "frame";
    const seq = document.createElement("b");
    seq.textContent = `#${change.seq}`;
    frame.append(seq, ` ${change.eventType.toLowerCase()} ${table} ${id} · ${shown}`);
    this.#line.prepend(frame);
    const row = document.createElement("tr");
    row.dataset.seq = change.seq;
    for (const cell of [change.seq, change.eventType, change.table, id, shown, change.commit_timestamp]) {
      row.insertCell().textContent = cell;
    }
    row.cells[4].className = "number";
    this.#body.prepend(row);
    while (this.#line.children.length > KEPT) this.#line.lastChild.remove();
    while (this.#body.rows.length > KEPT) this.#body.lastChild.remove();
  }

  /**
   * Milliseconds from the commit to now; null where that is meaningless: for a change from before
   * the subscription, and where this device's clock is behind the server's by more than rounding.
   */
  #latencyOf(change) {
    const committed = Date.parse(change.commit_timestamp);
    const latency = Date.now() - committed;
    return committed < this.#liveSince || latency < -5 ? null : Math.max(0, latency);
  }
}

function wideOnly(text) {
  const element = document.createElement("span");
  element.className = "wide-only";
  element.textContent = text;
  return element;
}
