/**
 * Where others point on the board. Screens differ, and so do the cards that people may see: so a
 * pointer is sent as a point of a card, to the room of the card's team only, or as a point of a
 * column, to all rooms.
 *
 * Owns the layer of cursors over the columns, and how often this page sends its own pointer.
 */

import { calm } from "./motion.js";
import { hueOf } from "./people.js";

// The server takes 10 broadcasts a second from a connection; "typing" is sent by the same one.
const TELL_EVERY_MS = 130;
const STILL_AFTER_MS = 6000;
const STATUS = /^[a-z]+$/;

export class Cursors {
  #columns;
  #layer;
  #rows;
  #rooms;
  #cursors = new Map();
  #known = new Set();
  #pointer = null;
  #told = { at: 0, teams: [], place: "" };
  #timer = null;

  /**
   * @param {HTMLElement} columns Where the cards are.
   * @param {import("./board_rows.js").BoardRows} rows
   * @param {import("./rooms.js").Rooms} rooms
   */
  constructor(columns, rows, rooms) {
    this.#columns = columns;
    this.#rows = rows;
    this.#rooms = rooms;
    this.#layer = document.createElement("div");
    this.#layer.className = "cursors";
    this.#layer.setAttribute("aria-hidden", "true");
    columns.append(this.#layer);
    columns.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.#moved(event));
    columns.addEventListener("dragover", (event) => this.#moved(event));
    columns.addEventListener("pointerleave", () => this.#moved(null));
    document.addEventListener("visibilitychange", () => document.hidden && this.#moved(null));
    rooms.on("cursor", (message) => this.#heard(message));
    rooms.on("presence", () => this.#metPeople());
    // Cards have been painted by the next frame; a cursor stays on the card it points at.
    rows.onChange(() => requestAnimationFrame(() => this.#placeAll()));
    new ResizeObserver(() => this.#placeAll()).observe(columns);
  }

  #metPeople() {
    const { people } = this.#rooms;
    for (const id of this.#cursors.keys()) if (!people.has(id)) this.#remove(id);
    const isNew = [...people.keys()].some((id) => !this.#known.has(id));
    this.#known = new Set(people.keys());
    // Those who have just come get this page's pointer.
    if (!isNew || !this.#pointer || Date.now() - this.#pointer.at > STILL_AFTER_MS) return;
    this.#told.place = "";
    this.#tellSoon();
  }

  #moved(event) {
    this.#pointer = event && { x: event.clientX, y: event.clientY, on: event.target, at: Date.now() };
    this.#tellSoon();
  }

  #tellSoon() {
    if (this.#timer !== null) return;
    const pace = TELL_EVERY_MS * Math.max(1, this.#told.teams.length);
    const wait = Math.max(0, this.#told.at + pace - Date.now());
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#tell();
    }, wait);
  }

  #tell() {
    const { teams, place } = this.#point() ?? { teams: [], place: null };
    const left = this.#told.teams.filter((teamId) => !teams.includes(teamId));
    const isNews = JSON.stringify(place) !== this.#told.place;
    this.#told = { at: Date.now(), teams, place: JSON.stringify(place) };
    for (const teamId of left) this.#rooms.say(teamId, "cursor", { gone: true });
    if (isNews) for (const teamId of teams) this.#rooms.say(teamId, "cursor", place);
  }

  /** This page's pointer, and the rooms that it may be sent to. */
  #point() {
    const on = this.#pointer?.on;
    if (!on?.isConnected) return null;
    const card = on.closest(".card[data-id]");
    if (card) {
      const id = Number(card.dataset.id);
      const team = this.#rows.get("demo_task", id)?.team_id;
      return { teams: this.#rooms.teams.filter((teamId) => teamId === team), place: { card: id, ...this.#within(card) } };
    }
    const column = on.closest(".column");
    if (!column) return null;
    return { teams: this.#rooms.teams, place: { column: column.dataset.status, ...this.#within(column) } };
  }

  #within(element) {
    const box = element.getBoundingClientRect();
    const part = (at, from, size) => Math.round((1000 * (at - from)) / size) / 1000;
    return { x: part(this.#pointer.x, box.left, box.width), y: part(this.#pointer.y, box.top, box.height) };
  }

  #heard({ person, payload, teamId }) {
    const cursor = this.#cursors.get(person.id);
    if (payload.gone === true) {
      // The pointer left this room; another room may have got it since.
      if (cursor?.teamId === teamId) this.#remove(person.id);
      return;
    }
    const place = placeOf(payload);
    if (!place) return;
    const known = cursor ?? this.#make(person);
    clearTimeout(known.timer);
    Object.assign(known, { place, teamId, timer: setTimeout(() => this.#remove(person.id), STILL_AFTER_MS) });
    this.#place(known);
  }

  #make(person) {
    const element = document.createElement("div");
    element.className = "cursor";
    element.dataset.hue = hueOf(person.id);
    element.dataset.cursor = person.id;
    element.innerHTML = '<svg viewBox="0 0 16 16"><path d="M2 1.5 13.5 7 8.4 8.7 6.2 13.8Z"/></svg>';
    const name = document.createElement("span");
    name.textContent = person.name.split(" ")[0];
    element.append(name);
    const cursor = { element, place: null, teamId: null, timer: null, isPlaced: false };
    this.#cursors.set(person.id, cursor);
    return cursor;
  }

  #remove(id) {
    const cursor = this.#cursors.get(id);
    if (!cursor) return;
    clearTimeout(cursor.timer);
    this.#cursors.delete(id);
    cursor.element.dataset.gone = "";
    // It fades out; with reduced motion it is removed at once.
    const motions = cursor.element.getAnimations();
    Promise.allSettled(motions.map((motion) => motion.finished)).then(() => cursor.element.remove());
  }

  #placeAll() {
    for (const cursor of this.#cursors.values()) this.#place(cursor);
  }

  #place(cursor) {
    const { element, place } = cursor;
    const target = place.card === undefined
      ? this.#columns.querySelector(`.column[data-status="${place.column}"]`)
      : this.#columns.querySelector(`.card[data-id="${place.card}"]`);
    // A card that this page does not have, or a board that is not shown.
    element.hidden = !target?.offsetParent;
    if (element.hidden) return;
    // With reduced motion it marks the card, and moves only from card to card.
    const { x, y } = calm.matches && place.card !== undefined ? { x: 0.95, y: 0.75 } : place;
    // The final position, not that of a card which is still gliding.
    const left = target.offsetLeft + x * target.offsetWidth;
    const top = target.offsetTop + y * target.offsetHeight;
    element.style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`;
    element.dataset.side = left > this.#layer.clientWidth - 110 ? "left" : "right";
    if (cursor.isPlaced) return;
    // Appears where it is, and glides from there.
    cursor.isPlaced = true;
    this.#layer.append(element);
  }
}

/** The pointer in another page's message, or null if the message has no valid one. */
function placeOf({ card, column, x, y }) {
  const isPart = (value) => Number.isFinite(value) && value >= 0 && value <= 1;
  if (!isPart(x) || !isPart(y)) return null;
  if (Number.isSafeInteger(card)) return { card, x, y };
  return typeof column === "string" && STATUS.test(column) ? { column, x, y } : null;
}
