/** Every public name of client.js and rows.js as a page in TypeScript uses it; compiled, not run. */

import { createClient } from "@supabase/supabase-js";
import { RealtimeClient } from "@supabase/realtime-js";

import { Channel, Client, Collection, connect, decodeFrame, RefusedError, rest, Write } from "/static/realtime/client.js";
import type {
  Change,
  ChannelStatus,
  CollectionBatch,
  CollectionStatus,
  PresenceReport,
  Status,
} from "/static/realtime/client.js";
import { rows } from "/static/realtime/rows.js";

interface Ticket {
  id: number;
  title: string;
  status: "open" | "closed";
}

const client: Client = connect("/realtime", {
  token: "jwt",
  getToken: async () => null,
  params: { apikey: "k" },
  WebSocket,
  random: Math.random,
});
const { status, code, retryInMs }: Status = client.status;
const stop: () => void = client.on("status", ({ reason }) => reason?.length);
client.on("error", (error) => error.message);
client.setToken(null);

const channel: Channel = client
  .channel("room", { private: true, self: true, ack: true, replay: { since: new Date(), limit: 5 }, presenceKey: "me", resume: false })
  .on<Ticket>("postgres_changes", { event: "*", schema: "public", table: "ticket", snapshot: { limit: 5 }, live: true, since: "e:1" }, (change: Change<Ticket>) => {
    const title: string | undefined = change.new.title;
    const seq: number | undefined = change.seq;
    return [title, seq, change.old.id, change.eventType, change.snapshot, change.errors?.length, change.tx?.length];
  })
  .on<{ name: string }>("broadcast", { event: "typing" }, ({ payload, meta }) => [payload.name, meta?.user_id])
  .on("presence", { event: "join" }, (report: PresenceReport) => report.newPresences?.[0]?.presence_ref)
  .on("system", {}, ({ hint, extension }) => [hint, extension])
  .subscribe((now: ChannelStatus, error?: Error) => [now, error?.message], { since: null, onResync: async () => {} });
const cursor: string | null = channel.cursor;
const isPrivate: boolean = channel.isPrivate;
channel.send("typing", new Uint8Array([1])).then((answer) => answer);
channel.track({ name: "Ada" }).then(() => channel.untrack());
const names: string[] = Object.keys(channel.presenceState());
channel.unsubscribe();

const open: Collection<Ticket> = client.collection<Ticket>("ticket", {
  filter: "status=eq.open",
  schema: "public",
  select: ["title"],
  key: ["id"],
  order: (a, b) => a.id - b.id,
  initial: [{ id: 1, title: "", status: "open" }],
  onChange: ({ commit_timestamp, seq, new: row }) => [commit_timestamp.length, seq, row.title],
  writes: rest("/api/tickets/", { headers: async () => ({ authorization: "Bearer" }), timeout: 5000, fetch }),
  topic: "t",
  private: true,
});
const write: Write = open.update(1, { status: "closed" });
write.confirmed.then((isShown: boolean) => isShown, (error) => (error instanceof RefusedError ? error.response.json() : error));
open.insert({ title: "new" }, (row) => fetch("/api/tickets/", { method: "POST", body: JSON.stringify(row) })).taken.then(() => write.key);
open.delete(["a", 1], async (key) => String(key));
const seen: Promise<boolean> = open.awaitTx(write.receipts[0] ?? "", 1000);
if (write.status === "refused" || open.isPending(1)) console.log(seen);
const forget: () => void = open.subscribe(({ changes, snapshot, status: now }: CollectionBatch<Ticket>) => {
  for (const { key, before, after, own } of changes) console.log(key, before?.title, after?.title, own, snapshot, now);
});
const one: Ticket | undefined = open.get(1) ?? open.get(["a", 1]) ?? open.get({ id: 1 });
const here: boolean = open.has(1);
const all: readonly Ticket[] = open.rows;
const again: readonly Ticket[] = open.getRows();
const state: CollectionStatus = open.getStatus();
for (const ticket of open) console.log(ticket.title);
for (const [key, ticket] of open.entries()) console.log(key, ticket.title, open.keys());
console.log(open.size, open.error?.message, open.truncated, open.table, open.status);
open.close();
client.close();

const supabase = createClient("http://localhost", "k");
const mine: Collection<Ticket> = rows<Ticket>(supabase, "ticket", { order: ["-title", "id"], private: true });
rows(supabase.channel("own"), "ticket", { filter: { build: () => "a=eq.1" } });
rows(new RealtimeClient("ws://localhost", { params: { apikey: "k" } }), "ticket").close();
decodeFrame(new ArrayBuffer(5)).topic.length;

// What would fail while it runs, fails before.
// @ts-expect-error No such option.
client.collection("ticket", { oder: "id" });
// @ts-expect-error Made by client.collection.
new Collection();
// @ts-expect-error Rows are not the page's to change.
open.rows.push(all[0]!);
// @ts-expect-error No such column.
open.update(1, { titel: "" });
// @ts-expect-error Made by insert, update and delete.
new Write();
// @ts-expect-error No such status.
if (open.status === "resynced") stop();
// @ts-expect-error No such kind of event.
channel.on("changes", {}, () => {});
// @ts-expect-error A channel has its topic already.
rows(supabase.channel("own"), "ticket", { topic: "t" });
// @ts-expect-error Neither a client nor a channel.
rows({}, "ticket");

export { again, code, cursor, forget, here, isPrivate, mine, names, one, retryInMs, state, status };
