/**
 * The board: three columns of cards, moved by dragging, by buttons and by other people.
 *
 * Owns the columns' elements. It changes rows by `actions` only, and paints the rows as they are.
 */

import { editTitle, makeCard, paintCard } from "./card.js";
import { openCardMenu } from "./menu.js";
import { glide } from "./motion.js";
import { fill } from "./people.js";

export class Board {
  #root;
  #columns;
  #names;
  #template;
  #cards = new Map();
  #rows;
  #actions;
  #painting = false;
  #touched = new Set();
  #dragged = null;

  /**
   * @param {HTMLElement} root
   * @param {import("./board_rows.js").BoardRows} rows
   * @param {object} actions `add`, `move`, `edit`, `remove`, as `app.js` defines them.
   */
  constructor(root, rows, actions) {
    this.#root = root;
    this.#rows = rows;
    this.#actions = actions;
    this.#template = document.getElementById("card-template");
    this.#columns = [...root.querySelectorAll(".column")];
    this.#names = this.#columns.map((column) => column.querySelector(".column-name").textContent);
    for (const column of this.#columns) this.#watchDrops(column);
    root.querySelector(".columns").addEventListener("click", (event) => this.#clicked(event));
    root.querySelector(".columns").addEventListener("dblclick", (event) => {
      const card = event.target.closest(".card-title")?.closest(".card");
      if (card?.draggable) this.edit(Number(card.dataset.id));
    });
    this.#watchForm(root.querySelector(".add"));
    rows.onChange(() => this.changed());
    this.changed();
  }

  /** Marks a card that somebody else has changed, with the next paint. */
  highlight(id) {
    this.#touched.add(id);
  }

  /** Called when rows changed; paints once for all changes of one moment. */
  changed() {
    if (this.#painting) return;
    this.#painting = true;
    queueMicrotask(() => {
      this.#painting = false;
      this.#paint();
    });
  }

  edit(id) {
    editTitle(this.#cards.get(id), (title) => this.#actions.edit(id, { title }));
  }

  /** The tasks of a column, in order. */
  tasksOf(status) {
    return this.#rows
      .all("demo_task")
      .filter((task) => task.status === status)
      .sort((a, b) => a.position - b.position || a.id - b.id);
  }

  /** Moves a task one place up or down, or to the end of a column beside its own. */
  nudge(id, direction) {
    const task = this.#rows.get("demo_task", id);
    const at = this.#statuses.indexOf(task.status);
    if (direction === "left" || direction === "right") {
      const status = this.#statuses[at + (direction === "left" ? -1 : 1)];
      if (status) this.#actions.move(id, status, this.tasksOf(status).at(-1) ?? null, null);
      return;
    }
    const others = this.tasksOf(task.status);
    const place = others.findIndex((other) => other.id === id);
    const wanted = place + (direction === "up" ? -1 : 1);
    if (wanted < 0 || wanted >= others.length) return;
    others.splice(place, 1);
    this.#actions.move(id, task.status, others[wanted - 1] ?? null, others[wanted] ?? null);
  }

  get #statuses() {
    return this.#columns.map((column) => column.dataset.status);
  }

  #mayChange(task) {
    return this.#rows.me.bypasses || this.#rows.myTeams.has(task.team_id);
  }

  #paint() {
    const rows = this.#rows;
    const teams = rows.all("demo_team").filter((team) => rows.me.bypasses || rows.myTeams.has(team.id));
    const select = this.#root.querySelector(".add select");
    fill(select, teams.map((team) => [team.id, team.name]));
    this.#root.querySelector(".add").hidden = teams.length === 0;
    const none = rows.all("demo_task").length === 0;
    const focused = document.activeElement;
    glide(this.#root.querySelector(".columns"), () => {
      this.#columns.forEach((column, at) => this.#paintColumn(column, at));
      for (const [id, card] of this.#cards) {
        if (rows.get("demo_task", id)) continue;
        card.remove();
        this.#cards.delete(id);
      }
    });
    this.#root.querySelector(".empty").hidden = !none;
    this.#root.querySelector(".columns").hidden = none;
    keepFocus(focused);
    for (const id of this.#touched) this.#flash(this.#cards.get(id));
    this.#touched.clear();
  }

  #paintColumn(column, at) {
    const tasks = this.tasksOf(column.dataset.status);
    const list = column.querySelector(".cards");
    column.querySelector(".count").textContent = tasks.length || "";
    tasks.forEach((task, place) => {
      let card = this.#cards.get(task.id);
      if (!card) {
        card = makeCard(this.#template, task.id);
        this.#cards.set(task.id, card);
      }
      if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
      paintCard(card, task, this.#rows, {
        left: this.#names[at - 1] ?? null,
        right: this.#names[at + 1] ?? null,
        mayChange: this.#mayChange(task),
      });
    });
  }

  #flash(card) {
    if (!card) return;
    card.classList.remove("card-touched");
    card.getBoundingClientRect(); // so that the animation starts anew
    card.classList.add("card-touched");
    card.addEventListener("animationend", () => card.classList.remove("card-touched"), { once: true });
  }

  #clicked(event) {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const id = Number(button.closest(".card").dataset.id);
    if (button.dataset.do === "more") openCardMenu(button, id, this, this.#rows, this.#actions);
    else this.nudge(id, button.dataset.do);
  }

  #watchForm(form) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { title, team, is_public: open } = form.elements;
      const sent = title.value;
      const added = await this.#actions.add(sent, Number(team.value), open.checked);
      // The task may be on the board, and somebody at work on it, before the answer comes.
      if (!added || title.value !== sent) return;
      title.value = "";
      open.checked = false;
      const focused = document.activeElement;
      if (focused === document.body || form.contains(focused)) title.focus();
    });
  }

  #watchDrops(column) {
    const list = column.querySelector(".cards");
    const clear = () => {
      column.classList.remove("column-over");
      for (const card of list.querySelectorAll(".card-before")) card.classList.remove("card-before");
    };
    column.addEventListener("dragstart", (event) => {
      this.#dragged = event.target.closest(".card");
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", this.#dragged.querySelector(".card-title").textContent);
      this.#dragged.classList.add("card-dragged");
    });
    column.addEventListener("dragend", () => {
      this.#dragged?.classList.remove("card-dragged");
      this.#dragged = null;
    });
    column.addEventListener("dragover", (event) => {
      if (!this.#dragged) return;
      event.preventDefault();
      clear();
      column.classList.add("column-over");
      this.#below(list, event.clientY)?.classList.add("card-before");
    });
    column.addEventListener("dragleave", (event) => {
      if (!column.contains(event.relatedTarget)) clear();
    });
    column.addEventListener("drop", (event) => {
      clear();
      if (!this.#dragged) return;
      event.preventDefault();
      const id = Number(this.#dragged.dataset.id);
      const next = this.#below(list, event.clientY);
      const status = column.dataset.status;
      const tasks = this.tasksOf(status).filter((task) => task.id !== id);
      const place = next ? tasks.findIndex((task) => task.id === Number(next.dataset.id)) : tasks.length;
      this.#actions.move(id, status, tasks[place - 1] ?? null, tasks[place] ?? null);
    });
  }

  /** The first card, other than the dragged one, whose middle is below `y`. */
  #below(list, y) {
    return [...list.querySelectorAll(".card")].find((card) => {
      const box = card.getBoundingClientRect();
      return card !== this.#dragged && y < box.top + box.height / 2;
    });
  }
}

/** Returns the focus to an element that lost it by being moved in the document. One that is now
 * disabled cannot have it: then the menu button beside it gets it. */
function keepFocus(focused) {
  if (!focused?.isConnected) return;
  const target = focused.disabled ? focused.parentElement.lastElementChild : focused;
  if (document.activeElement !== target) target.focus({ preventScroll: true });
}
