/** Who is writing a message just now: sent to the room it is meant for, shown under the chat. */

const SHOWN_FOR_MS = 3000;
const TELL_EVERY_MS = 1500;

export class Typing {
  #line;
  #text;
  #form;
  #rooms;
  #writers = new Map();
  #told = { at: 0, teams: [] };

  /**
   * @param {HTMLElement} chat
   * @param {import("./board_rows.js").BoardRows} rows
   * @param {import("./rooms.js").Rooms} rooms
   */
  constructor(chat, rows, rooms) {
    this.#line = chat.querySelector(".typing");
    this.#text = this.#line.querySelector(".typing-text");
    this.#form = chat.querySelector(".say");
    this.#rooms = rooms;
    this.#form.elements.body.addEventListener("input", () => this.#wrote());
    this.#form.elements.body.addEventListener("blur", () => this.#stopped());
    this.#form.elements.team.addEventListener("change", () => this.#stopped());
    this.#form.addEventListener("submit", () => this.#stopped());
    rooms.on("typing", ({ person, payload }) => this.#heard(person, payload.stopped !== true));
    rooms.on("presence", () => {
      for (const id of this.#writers.keys()) if (!rooms.people.has(id)) this.#forget(id);
    });
    rows.onChange((batch) => {
      if (batch?.table !== "demo_message" || batch.snapshot) return;
      for (const { before, after } of batch.changes) if (!before) this.#forget(after.author_id);
    });
  }

  /** The rooms of the message being written: a team's, or all of the user's. */
  get #teams() {
    const { value } = this.#form.elements.team;
    return value === "" ? this.#rooms.teams : [Number(value)];
  }

  #wrote() {
    if (this.#form.elements.body.value.trim() === "") {
      this.#stopped();
      return;
    }
    if (Date.now() - this.#told.at < TELL_EVERY_MS) return;
    this.#told = { at: Date.now(), teams: this.#teams };
    for (const teamId of this.#told.teams) this.#rooms.say(teamId, "typing", {});
  }

  #stopped() {
    const { at, teams } = this.#told;
    this.#told = { at: 0, teams: [] };
    if (Date.now() - at > SHOWN_FOR_MS) return;
    for (const teamId of teams) this.#rooms.say(teamId, "typing", { stopped: true });
  }

  #heard(person, isWriting) {
    this.#forget(person.id);
    if (isWriting) {
      const timer = setTimeout(() => this.#forget(person.id), SHOWN_FOR_MS);
      this.#writers.set(person.id, { name: person.name, timer });
    }
    this.#paint();
  }

  #forget(id) {
    clearTimeout(this.#writers.get(id)?.timer);
    if (this.#writers.delete(id)) this.#paint();
  }

  #paint() {
    const names = [...this.#writers.values()].map(({ name }) => name.split(" ")[0]);
    this.#line.dataset.on = String(names.length > 0);
    if (names.length) this.#text.textContent = sentence(names);
  }
}

function sentence(names) {
  if (names.length === 1) return `${names[0]} is typing`;
  if (names.length === 2) return `${names[0]} and ${names[1]} are typing`;
  return `${names.length} people are typing`;
}
