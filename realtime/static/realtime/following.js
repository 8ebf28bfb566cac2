/** How a collection is kept by a stream: what it asks for, and a channel of client.js that feeds it. */

import { Complaints } from "./complaints.js";
import { randomKey } from "./random_key.js";

const OPTIONS = new Set(["filter", "schema", "select", "key", "order", "initial", "onChange", "writes", "topic", "private"]);

/**
 * The binding of a collection: `snapshot` gives the rows, and `live` keeps the set exact.
 *
 * @param {string} table
 * @param {import("./collection.js").CollectionOptions} options
 * @throws {TypeError} when there is no table, or an option that does not exist.
 */
export function bindingOf(table, options) {
  if (typeof table !== "string" || table === "" || table === "*") {
    throw new TypeError('a collection is of one table: its name in the database, such as "demo_task"');
  }
  for (const name of Object.keys(options)) {
    if (!OPTIONS.has(name)) throw new TypeError(`no option ${name}; there are ${[...OPTIONS].join(", ")}`);
  }
  const { schema = "public", filter, select } = options;
  const binding = { event: "*", schema, table, snapshot: true, live: true };
  if (filter !== undefined && filter !== null) binding.filter = filter;
  if (select !== undefined && select !== null) binding.select = select;
  return binding;
}

/**
 * The columns of the primary key of a binding's table, as the server names them where a snapshot
 * begins; null from a server that does not.
 *
 * @param {any} keys
 * @param {{schema: string, table: string}} binding
 * @returns {?string[]}
 */
export function keyNamed(keys, { schema, table }) {
  if (!Array.isArray(keys)) return null;
  const columns = keys.find((key) => key?.schema === schema && key.table === table)?.columns;
  return Array.isArray(columns) && columns.length > 0 ? columns.map(String) : null;
}

/** Pages that share a topic would get each other's broadcasts. */
export function topicOf(table, { topic }) {
  return topic ?? `rows:${table}:${randomKey()}`;
}

/**
 * Feeds a collection by a channel.
 *
 * @param {() => ?object} open Makes the channel; null when the client is closed.
 * @param {object} binding
 * @param {import("./collection.js").Feed} feed
 * @param {{next: () => number, reset: () => void}} backoff
 * @returns {() => void} Ends it.
 */
export function followChannel(open, binding, feed, backoff) {
  const complaints = new Complaints(binding.table);
  let channel = null;
  let timer = null;

  function start() {
    try {
      follow();
    } catch (error) {
      // A channel that is in use is somebody else's, and is not left.
      channel = null;
      complaints.add(error.message);
      feed.status("errored", error);
    }
  }

  function follow() {
    const mine = open();
    channel = mine;
    if (mine === null) {
      feed.status("closed");
      return;
    }
    mine
      .on("postgres_changes", binding, (change) => mine === channel && feed.change(change))
      .on("system", {}, (message) => mine === channel && heard(message))
      .subscribe((status, error) => mine === channel && told(status, error), { onResync: () => {} });
  }

  /** The page reads nothing again: "resynced" is a part of catching up. */
  function told(status, error) {
    feed.status(status === "resynced" ? "catching up" : status, error);
  }

  function heard({ extension, status, message, keys }) {
    if (status === "error") return;
    if (extension === "snapshot" && message === "snapshot begins") {
      feed.begin(keyNamed(keys, binding));
    } else if (extension === "snapshot") {
      backoff.reset();
      feed.end(message === "snapshot complete");
    } else if (extension === "resume" && message === "resync required") {
      // Changes are lost and no snapshot follows. A new channel begins with one.
      stop();
      feed.status("catching up");
      timer = setTimeout(start, backoff.next());
    }
  }

  function stop() {
    clearTimeout(timer);
    const mine = channel;
    channel = null;
    mine?.unsubscribe();
  }

  start();
  return stop;
}
