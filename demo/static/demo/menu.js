/** The menu of a card: one popover for all cards, filled when it opens. */

/**
 * @param {HTMLElement} button The menu opens at it, and the focus returns to it.
 * @param {number} id
 * @param {object} board The Board.
 * @param {import("./board_rows.js").BoardRows} rows
 * @param {object} actions
 */
export function openCardMenu(button, id, board, rows, actions) {
  const menu = document.getElementById("card-menu");
  const task = rows.get("demo_task", id);
  const mine = task.assignee_id === rows.me.id;
  const inTeam = rows.myTeams.has(task.team_id);
  const items = [
    ["Edit title", () => board.edit(id)],
    [task.is_public ? "Show to the team only" : "Show to everyone", () => actions.edit(id, { is_public: !task.is_public })],
    ["Move up", () => board.nudge(id, "up")],
    ["Move down", () => board.nudge(id, "down")],
  ];
  if (mine) items.push(["Give it back", () => actions.edit(id, { assignee_id: null })]);
  else if (inTeam) items.push(["Take it", () => actions.edit(id, { assignee_id: rows.me.id })]);
  menu.replaceChildren(
    ...items.map(([text, run]) => item(menu, text, run)),
    document.createElement("hr"),
    item(menu, "Delete", () => actions.remove(id), "menu-item-danger"),
  );
  menu.setAttribute("aria-label", `“${task.title}”`);
  button.focus(); // Safari does not focus what is clicked, and the popover returns focus there
  menu.showPopover();
  place(menu, button.getBoundingClientRect());
  menu.querySelector("button").focus();
}

function item(menu, text, run, extra = "") {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `menu-item ${extra}`;
  button.textContent = text;
  button.addEventListener("click", () => {
    menu.hidePopover();
    run();
  });
  return button;
}

function place(menu, anchor) {
  const { offsetWidth: width, offsetHeight: height } = menu;
  const left = Math.min(Math.max(8, anchor.right - width), innerWidth - width - 8);
  const below = anchor.bottom + 6;
  const top = below + height > innerHeight - 48 ? Math.max(8, anchor.top - height - 6) : below;
  menu.style.left = `${left}px`;
  menu.style.top = `${top}px`;
}
