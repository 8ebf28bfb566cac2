/**
 * One page on a real server, for tests that start, stop and read it: `node page.mjs '<options>'`.
 *
 * Options: `url`, `token`, `channel`, `bindings`, `since`. It tells each status and each change as
 * a line of JSON, with the cursor at that moment, until its input ends.
 */

import { loadClient } from "./server.mjs";

const { connect } = await loadClient();
const { url, token, bindings, since, channel: options } = JSON.parse(process.argv[2]);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const client = connect(url, { token });
const channel = client.channel("page", options);
for (const config of bindings) {
  channel.on("postgres_changes", config, (change) => {
    const { seq, eventType, new: row, old, snapshot } = change;
    tell({ change: eventType, seq, row: eventType === "DELETE" ? old : row, snapshot, cursor: channel.cursor });
  });
}
channel.subscribe(
  (status, error) => tell({ status, error: error?.message ?? null, cursor: channel.cursor }),
  { since, onResync: () => tell({ resync: true }) },
);

process.stdin.on("end", () => client.close()).resume();
