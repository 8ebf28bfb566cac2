/**
 * The page: rows that the server embedded, and changes on top of them as they are committed. What
 * was missed while the connection was lost comes through the stream too, so rows are read again only
 * when the stream begins, and when it reports that changes are lost or that the user's permissions
 * changed.
 */

import { connect } from "../realtime/client.js";
import { Board } from "./board.js";
import { Chat } from "./chat.js";
import { Cursors } from "./cursors.js";
import { Here } from "./here.js";
import { teamTag, wear } from "./people.js";
import { Rooms } from "./rooms.js";
import { read, send } from "./server.js";
import { Store, TABLES } from "./store.js";
import { Strip } from "./strip.js";
import { Typing } from "./typing.js";

const embedded = (id) => JSON.parse(document.getElementById(id).textContent);
const urls = embedded("page-data");
const store = new Store(embedded("board-data"));
const strip = new Strip(document.querySelector(".strip"));
const layout = document.querySelector(".layout");
const announcer = document.getElementById("announce");
// Ids of tasks that this page has just changed, and until when a change of one that the stream brings
// counts as this page's own, which is not announced.
const own = new Map();
const OWN_FOR_MS = 3000;
const RETRY_MS = 2000;

function toast(text) {
  const element = document.createElement("p");
  element.className = "toast";
  element.textContent = text;
  document.querySelector(".toasts").append(element);
  setTimeout(() => element.remove(), 5000);
}

/** Sends a request; when the server refuses it, says so and shows the server's rows again. */
async function attempt(method, url, body) {
  try {
    await send(method, url, body);
    if (channel.status !== "live") refresh();
    return true;
  } catch (error) {
    if (error.status === 401) location.reload();
    toast(error.message);
    refresh();
    return false;
  }
}

const isOwn = (id) => own.get(id) > Date.now();
const taskUrl = (id) => `${urls.tasks}${id}/`;
const actions = {
  add: (title, teamId, isPublic) =>
    attempt("POST", urls.tasks, { title, team_id: teamId, is_public: isPublic }),
  edit: (id, values) => {
    own.set(id, Date.now() + OWN_FOR_MS);
    return attempt("PATCH", taskUrl(id), values);
  },
  remove: (id) => attempt("DELETE", taskUrl(id)),
  move: (id, status, after, before) => {
    own.set(id, Date.now() + OWN_FOR_MS);
    const position =
      after && before ? (after.position + before.position) / 2
      : after ? after.position + 1
      : before ? before.position - 1
      : 0;
    store.patch("demo_task", id, { status, position });
    const body = { status, after: after?.id ?? null, before: before?.id ?? null };
    return attempt("POST", `${taskUrl(id)}move/`, body);
  },
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let reading = null;
let readAgain = false;

/** Reads all rows again; settles when they are read, however many attempts that takes. */
function refresh() {
  readAgain = true;
  reading ??= readRows().finally(() => (reading = null));
  return reading;
}

async function readRows() {
  // Called again while rows are being read: those may be too old, so they are read once more.
  while (readAgain) {
    readAgain = false;
    store.hold();
    try {
      store.replace(await read(urls.rows));
      store.release();
    } catch (error) {
      if (error.status === 401) location.reload();
      store.release();
      readAgain = true;
      await pause(RETRY_MS);
    }
  }
}

const board = new Board(document.querySelector(".board"), store, actions);
const chat = new Chat(document.querySelector(".chat"), store, (body, teamId) =>
  attempt("POST", urls.messages, { body, team_id: teamId }),
);
chat.scrollDown();

store.onChange((change) => {
  if (!change) {
    paintMe();
    return;
  }
  const known = change.after ? [change.after.owner_id, change.after.assignee_id, change.after.author_id, change.after.user_id] : [];
  if (known.some((id) => id != null && !store.people.has(id))) refresh();
  if (change.table === "demo_message" && change.eventType === "INSERT") markUnread();
});

const COLUMNS = { todo: "To do", doing: "Doing", done: "Done" };

/** A change of a task as a sentence, for screen readers. */
function describe({ eventType, before, after }) {
  if (eventType === "DELETE") return before ? `“${before.title}” is gone` : "";
  if (!before) return `New in ${COLUMNS[after.status]}: “${after.title}”`;
  if (before.status !== after.status) return `“${after.title}” moved to ${COLUMNS[after.status]}`;
  if (before.title !== after.title) return `“${before.title}” is now called “${after.title}”`;
  return `“${after.title}” changed`;
}

function received(change) {
  strip.add(change);
  if (change.table !== "demo_task") {
    store.apply(change);
    return;
  }
  const id = change.new.id ?? change.old.id;
  const news = !isOwn(id);
  own.delete(id);
  const before = store.get("demo_task", id);
  store.apply({ ...change, highlight: news });
  if (news) announcer.textContent = describe({ ...change, before, after: store.get("demo_task", id) ?? change.new });
}

function paintMe() {
  for (const avatar of document.querySelectorAll("[data-person]")) {
    wear(avatar, store.people.get(Number(avatar.dataset.person)), false);
  }
  const teams = [...store.myTeams].map(([teamId, role]) => {
    const item = document.createElement("li");
    const note = document.createElement("span");
    note.className = "quiet";
    note.textContent = role === "lead" ? " lead" : "";
    item.append(teamTag(store, teamId), note);
    return item;
  });
  document.querySelector(".who-teams").replaceChildren(...teams);
}
paintMe();

const chatTab = document.querySelector('.tabs [data-view="chat"]');

function markUnread() {
  const hidden = getComputedStyle(document.querySelector(".chat")).display === "none";
  if (hidden) chatTab.querySelector(".unread").hidden = false;
}

document.querySelector(".tabs").addEventListener("click", (event) => {
  const view = event.target.closest("button")?.dataset.view;
  if (!view) return;
  layout.dataset.view = view;
  for (const tab of document.querySelectorAll(".tabs button")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.view === view));
  }
  if (view === "chat") {
    chatTab.querySelector(".unread").hidden = true;
    chat.scrollDown();
  }
});

const client = connect(urls.socket);
const channel = client.channel("board");
for (const table of TABLES) {
  // live: a row that comes into view or leaves it, by a change of its own or of permissions, arrives
  // as an INSERT or a DELETE.
  channel.on("postgres_changes", { event: "*", schema: "public", table, live: true }, received);
}

let begun = false;
let joining = false;
channel.on("system", {}, ({ extension, status }) => {
  if (extension !== "postgres_changes" || status !== "ok") return;
  // Sent once with each join, and then whenever the rows that the user may see have changed.
  if (!joining) refresh();
  joining = false;
});

const WORDS = { joining: "Joining…", "catching up": "Catching up…", resynced: "Reading all rows again…" };
channel.subscribe(
  (status, error) => {
    if (status === "joining") joining = true;
    if (status === "live") {
      strip.live();
      // The rows in the page are a little older than the stream.
      if (!begun) refresh();
      begun = true;
    } else if (client.status.status === "open") {
      strip.say(error ? "closed" : "connecting", error?.message ?? WORDS[status] ?? "Not subscribed");
    }
  },
  { onResync: refresh },
);
client.on("status", ({ status, retryInMs }) => {
  if (status === "connecting") strip.say("connecting", "Connecting…");
  if (status === "closed") strip.say("closed", `Offline, next try in ${Math.ceil(retryInMs / 1000)} s`);
});

const rooms = new Rooms(client, store);
const announce = (text) => (announcer.textContent = text);
new Here(document.querySelector(".here"), store, rooms, announce);
new Typing(document.querySelector(".chat"), store, rooms);
new Cursors(document.querySelector(".columns"), store, rooms);
