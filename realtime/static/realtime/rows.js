/**
 * Exact rows for `@supabase/supabase-js` and `@supabase/realtime-js`, unmodified: what
 * `client.collection` is to client.js, over a channel of theirs.
 *
 *     // `rows` is what this module exports; in templates its URL is {% static "realtime/rows.js" %}.
 *     const open = rows(supabase, "demo_task", { filter: "status=eq.open", order: "position" });
 *     open.subscribe(() => draw(open.rows, open.status));
 *
 * Their channels show every change once it is committed and know nothing of what happened while the
 * connection was lost: a row that was deleted meanwhile would stay on the page. Here each join
 * begins with a snapshot, which replaces the rows once it is complete.
 */

import { Backoff } from "./backoff.js";
import { Collection } from "./collection.js";
import { Complaints } from "./complaints.js";
import { bindingOf, keyNamed, topicOf } from "./following.js";
import { RefusedError } from "./receipts.js";
import { rest } from "./rest.js";
import { Silence, SILENCE_MS } from "./silence.js";
import { Write } from "./writing.js";

export { Collection, RefusedError, rest, Write };

// A snapshot's beginning and end concern all of a channel, so it feeds one collection.
const taken = new WeakSet();

/**
 * The rows of a table that the client's user may see and the filter lets through, kept exact from
 * now on until `close`.
 *
 * @param {object} source A client (of `createClient`, or a `RealtimeClient`), or a channel that is
 *   not subscribed yet and feeds nothing else: it is subscribed here. With a client the collection
 *   can also begin anew by itself when the server has lost its place; prefer it.
 * @param {string} table Its name in the database, such as "demo_task".
 * @param {import("./collection.js").CollectionOptions} [options] `topic` and `private` with a client
 *   only; `filter` may be a filter builder of the client as well.
 * @returns {Collection}
 * @throws {TypeError} when the source is neither, or a channel that is in use; or an option is
 *   unknown.
 */
export function rows(source, table, options = {}) {
  const binding = bindingOf(table, options);
  const open = opener(source, table, options);
  return new Collection(table, options, (feed) => follow(open, binding, feed));
}

/** How to make a channel, to make another where that is possible, and to end one. */
function opener(source, table, options) {
  if (typeof source?.channel === "function") {
    const realtime = source.realtime ?? source;
    return {
      ready: () => tokenOf(realtime),
      make: () => source.channel(topicOf(table, options), { config: { private: Boolean(options.private) } }),
      end: (channel) => source.removeChannel(channel),
      canRepeat: true,
    };
  }
  if (typeof source?.on !== "function" || typeof source.subscribe !== "function") {
    throw new TypeError("rows() takes a client of supabase-js or realtime-js, or a channel of one");
  }
  if (options.topic !== undefined || options.private !== undefined) {
    throw new TypeError("topic and private are said where the channel is made");
  }
  if (taken.has(source)) throw new TypeError("this channel feeds a collection already: make one for each");
  if (source.state !== undefined && source.state !== "closed") {
    throw new TypeError("this channel is subscribed already: rows() subscribes it");
  }
  taken.add(source);
  return {
    ready: async () => {},
    make: () => source,
    end: (channel) => channel.unsubscribe(),
    canRepeat: false,
  };
}

/** A client that asks a function for its token joins without one unless it has asked before. */
async function tokenOf(realtime) {
  const { accessToken, accessTokenValue = null, apiKey = null } = realtime;
  if (!accessToken || (accessTokenValue !== null && accessTokenValue !== apiKey)) return;
  // `setAuth` only logs a function that fails, and the join would then be anonymous.
  await accessToken.call(realtime);
  await realtime.setAuth();
}

/**
 * Reads the receipt of each change, which these clients do not hand on: from the message as it comes
 * in, by the hook that Phoenix channels have for that. Where a version has no such hook there are no
 * receipts, and an echo is known by its values.
 *
 * @returns {() => ?string} The receipt of the change whose callback runs.
 */
function receiptsOf(channel) {
  let tx = null;
  const [owner, hook] = channel.channelAdapter?.getChannel
    ? [channel.channelAdapter.getChannel(), "onMessage"]
    : [channel, "_onMessage"];
  const before = owner[hook];
  if (typeof before === "function") {
    owner[hook] = function (event, payload, ...rest) {
      tx = payload?.data?.tx ?? null;
      return before.call(this, event, payload, ...rest);
    };
  }
  return () => tx;
}

/** Feeds a collection by a channel of supabase-js. */
function follow(open, binding, feed) {
  const backoff = new Backoff(Math.random);
  const complaints = new Complaints(binding.table);
  let channel = null;
  let timer = null;
  let isEnded = false;
  // Of the present join: whether the server has confirmed the changes, whether the rows are
  // complete, and what it refuses.
  let flows = false;
  let isComplete = false;
  let problem = null;
  const silence = new Silence(() => {
    const text = `the server has sent nothing of what it owes for ${SILENCE_MS / 1000} s`;
    complaints.add(text);
    feed.status("errored", new Error(text));
  });

  function settle() {
    if (problem !== null) return;
    const isLive = flows && isComplete;
    if (isLive) silence.stop();
    else silence.restart();
    feed.status(isLive ? "live" : "catching up");
  }

  /** Joins with a token, or not at all: without one the rows would be those of somebody else. */
  async function begin() {
    try {
      await open.ready();
    } catch (error) {
      if (isEnded) return;
      timer = setTimeout(begin, backoff.next());
      refuse(error);
      return;
    }
    if (!isEnded) start();
  }

  function start() {
    try {
      join();
    } catch (error) {
      // A channel that is in use is somebody else's, and is not left.
      channel = null;
      refuse(error);
    }
  }

  function refuse(error) {
    const cause = error instanceof Error ? error : new Error(String(error));
    complaints.add(cause.message);
    feed.status("errored", cause);
  }

  function join() {
    const mine = open.make();
    channel = mine;
    const only = (callback) => (...args) => mine === channel && callback(...args);
    const receipt = receiptsOf(mine);
    mine.on("postgres_changes", binding, only((change) => changed({ ...change, tx: receipt() })));
    mine.on("system", {}, only(heard));
    mine.subscribe(only(subscribed));
  }

  function subscribed(status, error) {
    silence.stop();
    if (status === "SUBSCRIBED") {
      flows = isComplete = false;
      problem = null;
      settle();
    } else if (status === "CLOSED") {
      feed.status("closed", new Error("the channel was closed"));
    } else {
      const text = status === "TIMED_OUT" ? "no reply to the join" : (error?.message ?? "the connection was lost");
      // What the server refuses has a cause; a lost connection is no news for the console.
      if (error?.cause?.reason) complaints.add(text);
      feed.status("errored", new Error(problem ?? text, { cause: error }));
    }
  }

  function changed(change) {
    if (!isComplete) settle();
    feed.change(change);
  }

  function heard({ extension, status, message, hint, keys }) {
    if (status === "error") {
      problem = hint ? `${message} (${hint})` : String(message);
      complaints.add(problem);
      silence.stop();
      feed.status("errored", new Error(problem));
    } else if (extension === "postgres_changes") {
      if (hint) complaints.add(hint);
      flows = true;
      settle();
    } else if (extension === "snapshot") {
      isComplete = message !== "snapshot begins";
      if (isComplete) feed.end(message === "snapshot complete");
      else feed.begin(keyNamed(keys, binding));
      settle();
    } else if (extension === "resume" && message === "resync required") {
      lost();
    }
  }

  /** Changes are lost and no snapshot follows: a new channel begins with one. */
  function lost() {
    if (!open.canRepeat) {
      problem = "the server cannot say what was missed: make a new channel, or pass the client";
      complaints.add(problem);
      feed.status("errored", new Error(problem));
      return;
    }
    leave();
    feed.status("catching up");
    timer = setTimeout(start, backoff.next());
  }

  function leave() {
    clearTimeout(timer);
    silence.stop();
    const mine = channel;
    channel = null;
    if (mine) open.end(mine);
  }

  begin();
  return () => {
    isEnded = true;
    leave();
  };
}
