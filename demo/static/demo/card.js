/** One task as a card: its element, kept up to date with its row. */

import { teamTag, wear } from "./people.js";

/** The card's element, made once and patched afterwards, so that focus and edits survive. */
export function makeCard(template, id) {
  const card = template.content.firstElementChild.cloneNode(true);
  card.dataset.id = id;
  return card;
}

/**
 * @param {HTMLElement} card
 * @param {object} task
 * @param {import("./board_rows.js").BoardRows} rows
 * @param {{left: ?string, right: ?string, mayChange: boolean}} facts The names of the columns
 *   beside its own, and whether to offer changes: a guess, since the policies decide.
 */
export function paintCard(card, task, rows, { left, right, mayChange }) {
  const title = card.querySelector(".card-title");
  if (title.textContent !== task.title) title.textContent = task.title;
  card.querySelector(".card-team").replaceChildren(teamTag(rows, task.team_id));
  card.querySelector(".card-public").hidden = !task.is_public;
  card.querySelector(".card-locked").hidden = mayChange;
  const actions = card.querySelector(".card-actions");
  actions.hidden = !mayChange;
  card.draggable = mayChange && !card.querySelector(".card-edit");
  const [toLeft, toRight, more] = actions.children;
  aim(toLeft, left, task);
  aim(toRight, right, task);
  more.setAttribute("aria-label", `More for “${task.title}”`);
  const avatar = card.querySelector(".avatar");
  const person = task.assignee_id === null ? null : rows.people.get(task.assignee_id);
  avatar.hidden = task.assignee_id === null;
  wear(avatar, person);
  card.querySelector(".card-assignee").textContent = person ? `Taken by ${person.name}` : "";
}

function aim(button, column, task) {
  button.disabled = column === null;
  button.setAttribute("aria-label", column ? `Move “${task.title}” to ${column}` : "No column there");
}

/**
 * Lets the title be edited in place. Enter or leaving the field saves, Escape does not.
 *
 * @param {HTMLElement} card
 * @param {(title: string) => void} save Called with a new, non-empty title only.
 */
export function editTitle(card, save) {
  const title = card.querySelector(".card-title");
  if (card.querySelector(".card-edit")) return;
  const field = document.createElement("textarea");
  field.className = "card-edit";
  field.maxLength = 120;
  field.rows = 2;
  field.value = title.textContent;
  field.setAttribute("aria-label", "Title");
  const done = (keep) => {
    if (!field.isConnected) return;
    const text = field.value.trim().replaceAll(/\s+/g, " ");
    const hadFocus = document.activeElement === field;
    title.hidden = false;
    card.draggable = true;
    field.remove();
    if (hadFocus) card.querySelector(".card-actions button:last-child").focus();
    if (keep && text && text !== title.textContent) save(text);
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      done(true);
    } else if (event.key === "Escape") {
      done(false);
    }
  });
  // The field loses the focus for a moment when its card takes another place.
  field.addEventListener("blur", () => setTimeout(() => document.activeElement === field || done(true)));
  title.hidden = true;
  card.draggable = false;
  title.after(field);
  field.focus();
  field.select();
}
