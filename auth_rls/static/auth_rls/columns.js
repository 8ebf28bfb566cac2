// The columns that a policy may name, read anew when another permission is chosen.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const shown = document.getElementById("auth-rls-columns");
  const permission = document.getElementById("id_permission");
  if (!shown || !permission) return;

  let asked = 0;
  async function read() {
    const mine = ++asked;
    const query = new URLSearchParams({ permission: permission.value });
    let parts;
    try {
      const answer = await fetch(`${shown.dataset.url}?${query}`, { credentials: "same-origin" });
      // The page for signing in, after the session has ended.
      if (answer.redirected) throw new Error("You are signed out: sign in again in another tab.");
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      parts = page.body.childNodes;
    } catch (error) {
      parts = [String(error.message || error)];
    }
    // Of two answers on the way, the one to the last question stays.
    if (mine === asked) shown.replaceChildren(...parts);
  }

  // select2 tells jQuery alone.
  django.jQuery(permission).on("change", () => void read());
});
