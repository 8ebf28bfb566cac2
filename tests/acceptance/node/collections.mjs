/**
 * The same collection kept twice, by client.js and by rows.js over supabase-js, for tests that write
 * and compare: `node collections.mjs '<options>'`.
 *
 * Options: `url` (of the server, http), `path` (of its WebSocket), `key`, `token`, `table`,
 * `collection` (its options). After each batch a line of JSON comes out: which of the two, its
 * status, and its rows. Commands come in, one a line: `cut` loses the connections, `token <jwt>`
 * changes the token and is answered by a line, `close` ends both.
 */

import readline from "node:readline";

import { createClient } from "@supabase/supabase-js";
import { WebSocket } from "ws";

import { loadClient } from "../client_js/server.mjs";

const { connect } = await loadClient("client.js");
const { rows } = await loadClient("rows.js");
const { url, path, key, token, table, collection: options } = JSON.parse(process.argv[2]);
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const sockets = new Set();

class Socket extends WebSocket {
  constructor(...given) {
    super(...given);
    sockets.add(this);
    this.on("close", () => sockets.delete(this));
    this.on("error", () => {});
  }
}

let jwt = token;
const client = connect(url + path, { token, WebSocket: Socket });
const supabase = createClient(url, key, {
  accessToken: async () => jwt,
  realtime: { transport: Socket, reconnectAfterMs: () => 1000 },
  auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
});

const kept = {
  client: client.collection(table, options),
  supabase: rows(supabase, table, options),
};
for (const [by, collection] of Object.entries(kept)) {
  collection.subscribe(({ changes, snapshot, status }) => {
    tell({ by, status, changes: changes.length, snapshot, error: collection.error?.message ?? null, rows: collection.rows });
  });
}

const commands = {
  cut: () => sockets.forEach((socket) => socket.terminate()),
  token: (value) => {
    jwt = value;
    client.setToken(value);
    supabase.realtime.setAuth();
    tell({ token: value });
  },
  close: () => {
    for (const collection of Object.values(kept)) collection.close();
    client.close();
    supabase.realtime.disconnect();
    tell({ closed: true });
  },
};

const input = readline.createInterface({ input: process.stdin });
input.on("line", (line) => {
  const [name, ...rest] = line.split(" ");
  commands[name](...rest);
});
input.on("close", () => process.exit(0));
