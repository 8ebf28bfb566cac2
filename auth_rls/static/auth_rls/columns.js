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
    const answer = await fetch(`${shown.dataset.url}?${query}`, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    // Of two answers on the way, the one to the last question stays.
    if (answer.ok && mine === asked) shown.replaceChildren(...page.body.childNodes);
  }

  // select2 tells jQuery alone.
  django.jQuery(permission).on("change", () => read().catch(console.error));
});
