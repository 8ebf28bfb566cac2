/** What a page tracks on one channel, and tracks again after every reconnect. */

import { report } from "./callbacks.js";
import { equal } from "./json.js";
import { Lost } from "./replies.js";

/** One call of `track` (with a meta) or of `untrack` (with null). `isSent`: its reply is awaited. */
class Call {
  isSent = false;
  isAnswered = false;

  constructor(meta) {
    this.meta = meta;
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => {
        this.isAnswered = true;
        resolve(value);
      };
      this.reject = (error) => {
        this.isAnswered = true;
        reject(error);
      };
    });
  }
}

export class Tracking {
  #ask;
  #refused;
  #latest = null;
  #shown = null;

  /**
   * @param {(payload: object) => Promise<object>} ask Sends to the server; resolves with its reply.
   * @param {() => void} refused Called when the server refuses to track a former meta again.
   */
  constructor(ask, refused) {
    this.#ask = ask;
    this.#refused = refused;
  }

  /** @returns {?object} The meta to show; null for none. */
  get meta() {
    return this.#latest?.meta ?? null;
  }

  /**
   * Shows `meta`, or with null nothing, from now on.
   *
   * @returns {Promise<void>} Resolved when the server has it, even if that takes several
   *   connections; rejected when it refuses, and then the former meta is kept. A call that is
   *   replaced before it was sent ends as the later one does. A call that repeats the one under
   *   way is not sent.
   */
  set(meta, isJoined) {
    const overtaken = this.#latest;
    if (isJoined && overtaken?.isSent && equal(overtaken.meta, meta)) return overtaken.promise;
    const call = new Call(meta);
    this.#latest = call;
    if (overtaken && !overtaken.isSent && !overtaken.isAnswered) overtaken.resolve(call.promise);
    if (isJoined) this.#send(call);
    // Without a connection this page is not present.
    else if (meta === null) call.resolve();
    return call.promise;
  }

  /** Joined: sends the meta that was shown, or waits to be. */
  again() {
    if (this.meta !== null) this.#send(this.#latest);
  }

  /** The channel was unsubscribed. */
  end() {
    const call = this.#latest;
    this.#latest = this.#shown = null;
    if (!call || call.isAnswered) return;
    call.promise.catch(() => {});
    call.reject(new Error("unsubscribed"));
  }

  async #send(call) {
    const isRepetition = call.isAnswered;
    call.isSent = true;
    try {
      await this.#ask(
        call.meta === null
          ? { type: "presence", event: "untrack" }
          : { type: "presence", event: "track", payload: call.meta },
      );
    } catch (error) {
      call.isSent = false;
      if (error instanceof Lost) this.#wasCut(call);
      else if (isRepetition) this.#wasRefusedAgain(call, error);
      else this.#wasRefused(call, error);
      return;
    }
    call.isSent = false;
    this.#shown = call.meta;
    call.resolve();
  }

  #wasCut(call) {
    if (call.isAnswered) return;
    if (call.meta === null) call.resolve();
    else if (call !== this.#latest && this.#latest) call.resolve(this.#latest.promise);
  }

  #wasRefused(call, error) {
    call.reject(error);
    if (call !== this.#latest) return;
    this.#latest = null;
    if (this.#shown === null) return;
    this.#latest = new Call(this.#shown);
    this.#latest.resolve();
  }

  /** The page awaits no reply here. The next join tries again: the right may have been given back. */
  #wasRefusedAgain(call, error) {
    if (call !== this.#latest) return;
    report(new Error(`not tracked again: ${error.message}`, { cause: error }));
    this.#refused();
  }
}
