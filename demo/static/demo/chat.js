/** The chat: the messages that the user may read, and a form to write to a team or to everyone. */

import { fill, teamTag, wear } from "./people.js";

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

export class Chat {
  #list;
  #form;
  #rows;
  #painting = false;

  /**
   * @param {HTMLElement} root
   * @param {import("./board_rows.js").BoardRows} rows
   * @param {(body: string, teamId: ?number) => Promise<boolean>} say
   */
  constructor(root, rows, say) {
    this.#list = root.querySelector(".messages");
    this.#form = root.querySelector(".say");
    this.#rows = rows;
    this.#form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { body, team } = this.#form.elements;
      const said = await say(body.value, team.value === "" ? null : Number(team.value));
      if (!said) return;
      body.value = "";
      body.focus();
    });
    rows.onChange(() => this.#changed());
    this.#changed();
  }

  /** Scrolls to the newest message; called when the chat has just been shown. */
  scrollDown() {
    this.#list.scrollTop = this.#list.scrollHeight;
  }

  #changed() {
    if (this.#painting) return;
    this.#painting = true;
    queueMicrotask(() => {
      this.#painting = false;
      this.#paint();
    });
  }

  #paint() {
    const rows = this.#rows;
    const teams = rows.all("demo_team").filter((team) => rows.myTeams.has(team.id));
    fill(this.#form.elements.team, [...teams.map((team) => [team.id, team.name]), ["", "Everyone"]]);
    const messages = rows.all("demo_message").sort((a, b) => a.id - b.id);
    const atEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 60;
    const kept = new Map([...this.#list.children].map((item) => [Number(item.dataset.message), item]));
    const items = messages.map((message) => this.#item(kept.get(message.id), message));
    if (items.length === 0) items.push(nothing());
    // Only what differs is touched, so that a screen reader hears new messages and no others.
    for (const item of [...this.#list.children]) if (!items.includes(item)) item.remove();
    items.forEach((item, at) => {
      if (this.#list.children[at] !== item) this.#list.insertBefore(item, this.#list.children[at] ?? null);
    });
    if (atEnd) this.scrollDown();
  }

  #item(existing, message) {
    const author = this.#rows.people.get(message.author_id);
    const item = existing ?? document.createElement("li");
    const painted = JSON.stringify([message, author?.name, this.#rows.get("demo_team", message.team_id)?.name]);
    if (item.dataset.painted === painted) return item;
    item.className = "message";
    item.dataset.message = message.id;
    item.dataset.painted = painted;
    const avatar = document.createElement("span");
    avatar.className = "avatar";
    avatar.setAttribute("aria-hidden", "true");
    wear(avatar, author);
    const head = document.createElement("p");
    head.className = "message-head";
    const name = document.createElement("strong");
    name.textContent = author?.name ?? "Somebody";
    const time = document.createElement("time");
    time.dateTime = message.created_at;
    time.textContent = clock.format(new Date(message.created_at));
    const to = message.team_id === null ? everyone() : teamTag(this.#rows, message.team_id);
    head.append(name, to, time);
    const body = document.createElement("p");
    body.className = "message-body";
    body.textContent = message.body;
    item.replaceChildren(avatar, head, body);
    return item;
  }
}

function everyone() {
  const mark = document.createElement("span");
  mark.textContent = "to all";
  return mark;
}

function nothing() {
  const item = document.createElement("li");
  item.className = "messages-none";
  item.textContent = "No message that you may read.";
  return item;
}
