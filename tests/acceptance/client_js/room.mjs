/**
 * A page in a room on a real server, for tests that tell it what to do: `node room.mjs '<options>'`.
 *
 * Options: `url`, `token`, `name` and `channel` (its options). A line of its input is a list, the
 * name of a method and arguments; `{"bytes": [1, 2]}` stands for bytes. What it hears, and what
 * becomes of each call, it tells in lines of JSON, until its input ends.
 */

import { createInterface } from "node:readline";

import { loadClient } from "./server.mjs";

const { connect } = await loadClient();
const { url, token, name, channel: options } = JSON.parse(process.argv[2]);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const read = (value) => (value?.bytes ? Uint8Array.from(value.bytes) : value);
const written = (value) =>
  value instanceof ArrayBuffer ? { bytes: [...new Uint8Array(value)] } : value;

const client = connect(url, { token });
const room = client.channel(name, options);
room.on("broadcast", { event: "*" }, ({ event, payload, meta }) =>
  tell({ broadcast: event, payload: written(payload), meta: meta ?? null }),
);
room.on("presence", { event: "*" }, ({ event, key }) =>
  tell({ presence: event, key: key ?? null, here: room.presenceState() }),
);
room.subscribe((status, error) => tell({ status, error: error?.message ?? null }));

const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const [method, ...args] = JSON.parse(line);
  room[method](...args.map(read)).then(
    () => tell({ done: method }),
    (error) => tell({ failed: method, error: error.message }),
  );
});
input.on("close", () => client.close());
