/** Who is present: the avatars of the others in the bar, from the presence of the rooms. */

import { wear } from "./people.js";

const SHOWN = 3;
// A page that is reloaded leaves for a moment; its avatar stays for so long.
const GRACE_MS = 1500;

export class Here {
  #root;
  #rows;
  #rooms;
  #announce;
  #leaving = new Map();
  #items = new Map();
  #begun = false;

  /**
   * @param {HTMLElement} root A list.
   * @param {import("./board_rows.js").BoardRows} rows
   * @param {import("./rooms.js").Rooms} rooms
   * @param {(text: string) => void} announce
   */
  constructor(root, rows, rooms, announce) {
    this.#root = root;
    this.#rows = rows;
    this.#rooms = rooms;
    this.#announce = announce;
    rooms.on("presence", () => this.#changed());
    rows.onChange((batch) => batch || this.#changed());
    this.#changed();
  }

  #changed() {
    const { people, isLive } = this.#rooms;
    this.#root.dataset.stale = String(!isLive);
    for (const [id, teams] of people) this.#came(id, teams);
    for (const id of this.#items.keys()) {
      if (people.has(id) || this.#leaving.has(id)) continue;
      this.#leaving.set(id, setTimeout(() => this.#left(id), GRACE_MS));
    }
    this.#paint();
    // Those who were present before this page are not announced.
    this.#begun ||= isLive;
  }

  #came(id, teams) {
    clearTimeout(this.#leaving.get(id));
    this.#leaving.delete(id);
    const person = this.#rows.people.get(id);
    let item = this.#items.get(id);
    if (!item) {
      item = makeItem(id);
      this.#items.set(id, item);
      if (this.#begun) this.#announce(`${person.name} is here`);
    }
    const names = teams.map((teamId) => this.#rows.get("demo_team", teamId)?.name ?? `Team ${teamId}`);
    wear(item.firstChild, person, false);
    item.title = `${person.name} · ${names.join(", ")}`;
    item.lastChild.textContent = person.name;
  }

  #left(id) {
    this.#leaving.delete(id);
    if (this.#rooms.people.has(id)) return;
    this.#items.get(id)?.remove();
    this.#items.delete(id);
    const person = this.#rows.people.get(id);
    if (person) this.#announce(`${person.name} has left`);
    this.#paint();
  }

  #paint() {
    const ids = [...this.#items.keys()].sort((a, b) => a - b);
    const rest = ids.slice(SHOWN);
    const shown = ids.slice(0, rest.length > 1 ? SHOWN : SHOWN + 1);
    const items = shown.map((id) => this.#items.get(id));
    if (shown.length < ids.length) items.push(this.#more(ids.slice(shown.length)));
    for (const item of [...this.#root.children]) if (!items.includes(item)) item.remove();
    items.forEach((item, at) => {
      if (this.#root.children[at] !== item) this.#root.insertBefore(item, this.#root.children[at] ?? null);
    });
    this.#root.hidden = items.length === 0;
  }

  #more(ids) {
    const item = makeItem("more");
    item.firstChild.textContent = `+${ids.length}`;
    item.title = ids.map((id) => this.#rows.people.get(id)?.name ?? "Somebody").join(", ");
    item.lastChild.textContent = item.title;
    return item;
  }
}

function makeItem(id) {
  const item = document.createElement("li");
  item.dataset.here = id;
  const avatar = document.createElement("span");
  avatar.className = "avatar";
  avatar.setAttribute("aria-hidden", "true");
  const name = document.createElement("span");
  name.className = "visually-hidden";
  item.append(avatar, name);
  return item;
}
