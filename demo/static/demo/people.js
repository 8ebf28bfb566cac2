/** How people and teams look: names, initials, colours. */

const HUES = 6;

export function hueOf(id) {
  return String((id - 1) % HUES);
}

export function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0][0], words.at(-1)[0]] : [name.slice(0, 2)];
  return letters.join("").toUpperCase();
}

/** Makes `element` the avatar of a person; without a person, a neutral one. */
export function wear(element, person, label = true) {
  element.textContent = person ? initials(person.name) : "?";
  element.dataset.hue = person ? hueOf(person.id) : "";
  if (label) element.title = person ? person.name : "Somebody";
}

export function teamTag(rows, teamId) {
  const tag = document.createElement("span");
  tag.className = "tag";
  tag.dataset.hue = hueOf(teamId);
  tag.textContent = rows.get("demo_team", teamId)?.name ?? `Team ${teamId}`;
  return tag;
}

/** Fills a select, keeping what was chosen if it is still there, and an open list open. */
export function fill(select, options) {
  const painted = JSON.stringify(options);
  if (select.dataset.painted === painted) return;
  select.dataset.painted = painted;
  const chosen = select.options.length ? select.value : null;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === chosen)) select.value = chosen;
}
