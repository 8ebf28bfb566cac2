/**
 * Writes a task by a collection of client.js, and by one of rows.js over supabase-js, on a real server:
 * `node writes.mjs '<options>'` with `url` (http), `key`, `token`, `team`. A line of JSON for each of
 * the two says what became of its writes, and the titles of its tasks after each batch that changed them.
 */

import { createClient } from "@supabase/supabase-js";
import { WebSocket } from "ws";

import { loadClient } from "../client_js/server.mjs";

const { connect, rest } = await loadClient("client.js");
const { rows } = await loadClient("rows.js");
const { url, key, token, team } = JSON.parse(process.argv[2]);

const options = { order: "id", writes: rest(`${url}/api/tasks/`, { headers: { authorization: `Bearer ${token}` } }) };
const client = connect(`${url}/realtime`, { token, WebSocket });
const supabase = createClient(url, key, {
  accessToken: async () => token,
  realtime: { transport: WebSocket },
  auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
});

const live = (tasks) =>
  new Promise((resolve) => {
    const stop = tasks.subscribe(({ status }) => status === "live" && (stop(), resolve()));
  });

async function written(by, tasks) {
  await live(tasks);
  const shown = [];
  tasks.subscribe(() => {
    const titles = tasks.rows.map(({ title }) => title).filter((title) => title.startsWith(by)).join();
    if (titles !== shown.at(-1)) shown.push(titles);
  });
  const insert = tasks.insert({ title: `${by} 1`, team_id: team });
  const confirmed = [await insert.confirmed];
  const update = tasks.update(insert.key, { title: `${by} 2` });
  confirmed.push(await update.confirmed);
  const gone = tasks.delete(insert.key);
  confirmed.push(await gone.confirmed);
  const refused = await tasks.update(insert.key, { title: "nothing" }).confirmed.catch(({ status }) => status);
  const receipts = new Set([insert, update, gone].flatMap((write) => write.receipts));
  console.log(JSON.stringify({ by, confirmed, receipts: receipts.size, refused, shown }));
}

await written("client", client.collection("demo_task", options));
await written("supabase", rows(supabase, "demo_task", options));
process.exit(0);
