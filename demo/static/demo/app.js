/**
 * The page: rows that the server embedded, and then four collections, which are exactly what the
 * user may see whatever happens to the connection, the rows or the policies. Only names are read over
 * HTTP: when rows came anew, and when a row mentions somebody unknown.
 */

import { connect } from "../realtime/client.js";
import { Board } from "./board.js";
import { BoardRows } from "./board_rows.js";
import { Chat } from "./chat.js";
import { Cursors } from "./cursors.js";
import { Here } from "./here.js";
import { teamTag, wear } from "./people.js";
import { Rooms } from "./rooms.js";
import { read, send } from "./server.js";
import { Strip } from "./strip.js";
import { Typing } from "./typing.js";

const embedded = (id) => JSON.parse(document.getElementById(id).textContent);
const urls = embedded("page-data");
const client = connect(urls.socket);
const strip = new Strip(document.querySelector(".strip"));
const rows = new BoardRows(client, embedded("board-data"), (change) => strip.add(change));
const layout = document.querySelector(".layout");
const announcer = document.getElementById("announce");
const RETRY_MS = 2000;

function toast(text) {
  const element = document.createElement("p");
  element.className = "toast";
  element.textContent = text;
  document.querySelector(".toasts").append(element);
  setTimeout(() => element.remove(), 5000);
}

/** Waits for a request; when the server refuses it, says so. */
async function attempt(request) {
  try {
    await request;
    return true;
  } catch (error) {
    if (error.status === 401) location.reload();
    toast(error.message);
    return false;
  }
}

// A task that changes or goes does so at once, and comes back when the server refuses. What is new
// comes by the stream.
const taskUrl = (id) => `${urls.tasks}${id}/`;
const sending = new Map();

/** Sends what is written to a task after what was written to it before: requests that are on their
 * way together may arrive in another order. */
function inTurn(id, request) {
  const sent = (sending.get(id) ?? Promise.resolve()).catch(() => {}).then(request);
  sending.set(id, sent);
  const end = () => sending.get(id) === sent && sending.delete(id);
  sent.then(end, end);
  return sent;
}

const actions = {
  add: (title, teamId, isPublic) =>
    attempt(send("POST", urls.tasks, { title, team_id: teamId, is_public: isPublic })),
  edit: (id, values) =>
    attempt(rows.tasks.update(id, values, () => inTurn(id, () => send("PATCH", taskUrl(id), values))).taken),
  remove: (id) => attempt(rows.tasks.delete(id, () => inTurn(id, () => send("DELETE", taskUrl(id)))).taken),
  move: (id, status, after, before) => {
    // The server says the exact one.
    const position =
      after && before ? (after.position + before.position) / 2
      : after ? after.position + 1
      : before ? before.position - 1
      : 0;
    const body = { status, after: after?.id ?? null, before: before?.id ?? null };
    const move = () => send("POST", `${taskUrl(id)}move/`, body);
    return attempt(rows.tasks.update(id, { status, position }, () => inTurn(id, move)).taken);
  },
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let reading = null;
let readAgain = false;

/** Reads the names of people again, however many attempts that takes. */
function readPeople() {
  readAgain = true;
  reading ??= readNames().finally(() => (reading = null));
}

async function readNames() {
  // Asked for again while names are being read: those may be too old, so they are read once more.
  while (readAgain) {
    readAgain = false;
    try {
      rows.setPeople(await read(urls.rows));
    } catch (error) {
      if (error.status === 401) location.reload();
      readAgain = true;
      await pause(RETRY_MS);
    }
  }
}

const board = new Board(document.querySelector(".board"), rows, actions);
const chat = new Chat(document.querySelector(".chat"), rows, (body, teamId) =>
  attempt(send("POST", urls.messages, { body, team_id: teamId })),
);
chat.scrollDown();
// The drawer of frames takes room from the chat.
document.querySelector(".strip").addEventListener("toggle", () => chat.scrollDown());

// Rows came anew: names may be others, and are read once all tables have theirs.
let areNamesOld = false;
const mentioned = ({ owner_id, assignee_id, author_id, user_id }) =>
  [owner_id, assignee_id, author_id, user_id].filter((id) => id != null);

rows.onChange((batch) => {
  if (!batch) {
    paintMe();
    return;
  }
  const { table, changes, snapshot } = batch;
  if (table === "demo_membership" || table === "demo_team") paintMe();
  areNamesOld ||= snapshot;
  const known = ({ after }) => !after || mentioned(after).every((id) => rows.people.has(id));
  if (!snapshot && !changes.every(known)) readPeople();
  if (table === "demo_task" && !snapshot) for (const change of changes) changed(change);
  if (table === "demo_message" && !snapshot && changes.some(({ before }) => !before)) markUnread();
  showState();
});

const COLUMNS = { todo: "To do", doing: "Doing", done: "Done" };

/** A change of a task as a sentence, for screen readers. */
function describe({ before, after }) {
  if (!after) return `“${before.title}” is gone`;
  if (!before) return `New in ${COLUMNS[after.status]}: “${after.title}”`;
  if (before.status !== after.status) return `“${after.title}” moved to ${COLUMNS[after.status]}`;
  if (before.title !== after.title) return `“${before.title}” is now called “${after.title}”`;
  return `“${after.title}” changed`;
}

/** A task came, changed or went: what others did is marked and announced. */
function changed({ key, before, after, own }) {
  if (own) return;
  if (after) board.highlight(key);
  announcer.textContent = describe({ before, after });
}

function paintMe() {
  for (const avatar of document.querySelectorAll("[data-person]")) {
    wear(avatar, rows.people.get(Number(avatar.dataset.person)), false);
  }
  const teams = [...rows.myTeams].map(([teamId, role]) => {
    const item = document.createElement("li");
    const note = document.createElement("span");
    note.className = "quiet";
    note.textContent = role === "lead" ? " lead" : "";
    item.append(teamTag(rows, teamId), note);
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

const WORDS = { joining: "Joining…", "catching up": "Catching up…", closed: "Not subscribed" };

function showState() {
  const { status, error } = rows.state;
  if (status === "live") {
    strip.live();
    if (areNamesOld) readPeople();
    areNamesOld = false;
  } else if (client.status.status === "open") {
    strip.say(error ? "closed" : "connecting", error?.message ?? WORDS[status]);
  }
}

client.on("status", ({ status, retryInMs }) => {
  if (status === "connecting") strip.say("connecting", "Connecting…");
  if (status === "closed") strip.say("closed", `Offline, next try in ${Math.ceil(retryInMs / 1000)} s`);
});

const rooms = new Rooms(client, rows);
const announce = (text) => (announcer.textContent = text);
new Here(document.querySelector(".here"), rows, rooms, announce);
new Typing(document.querySelector(".chat"), rows, rooms);
new Cursors(document.querySelector(".columns"), rows, rooms);
