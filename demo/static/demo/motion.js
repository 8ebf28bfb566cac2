/** Animates rows: what moves glides, what comes fades in, what goes fades out. */

/** The browser's setting for reduced motion. */
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
const EASE = "cubic-bezier(0.2, 0.8, 0.2, 1)";

/**
 * Runs `mutate`, then animates every `[data-id]` in `root` from where it was to where it is.
 * Without animation under the setting for reduced motion, and in hidden pages.
 *
 * @param {Element} root
 * @param {() => void} mutate
 */
export function glide(root, mutate) {
  if (calm.matches || document.hidden) {
    mutate();
    return;
  }
  const before = new Map();
  for (const element of root.querySelectorAll("[data-id]")) {
    before.set(element, element.getBoundingClientRect());
  }
  mutate();
  for (const element of root.querySelectorAll("[data-id]")) {
    const was = before.get(element);
    before.delete(element);
    if (was) move(element, was);
    else arrive(element);
  }
  for (const [element, was] of before) vanish(root, element, was);
}

function move(element, was) {
  const is = element.getBoundingClientRect();
  const x = was.left - is.left;
  const y = was.top - is.top;
  if (Math.abs(x) < 1 && Math.abs(y) < 1) return;
  const far = Math.abs(x) > 40;
  element.classList.toggle("card-moving", far);
  const frames = [{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }];
  const motion = element.animate(frames, { duration: far ? 420 : 260, easing: EASE });
  motion.onfinish = () => element.classList.remove("card-moving");
}

function arrive(element) {
  const frames = [{ opacity: 0, transform: "scale(0.94)" }, { opacity: 1, transform: "none" }];
  element.animate(frames, { duration: 260, easing: EASE });
}

/** Fades out an inert copy of an element that was removed, where it was. */
function vanish(root, element, was) {
  const origin = root.getBoundingClientRect();
  const ghost = element.cloneNode(true);
  ghost.removeAttribute("data-id");
  ghost.inert = true;
  ghost.setAttribute("aria-hidden", "true");
  Object.assign(ghost.style, {
    position: "absolute",
    left: `${was.left - origin.left}px`,
    top: `${was.top - origin.top}px`,
    width: `${was.width}px`,
    margin: 0,
    listStyle: "none",
    pointerEvents: "none",
  });
  root.append(ghost);
  const frames = [{ opacity: 1, transform: "none" }, { opacity: 0, transform: "scale(0.94)" }];
  ghost.animate(frames, { duration: 220, easing: "ease-in" }).onfinish = () => ghost.remove();
}
