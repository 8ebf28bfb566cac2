// The test of a policy, shown in its form. Without this script the button opens it as a page.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("auth-rls-test-button");
  const panel = document.getElementById("auth-rls-test-panel");
  if (!button) return;

  button.addEventListener("click", async (click) => {
    click.preventDefault();
    button.disabled = true;
    panel.hidden = false;
    panel.textContent = "…";
    try {
      const answer = await fetch(button.formAction, {
        method: "POST",
        body: new FormData(button.form),
        credentials: "same-origin",
      });
      // The page for signing in, after the session has ended.
      if (answer.redirected) throw new Error("You are signed out: sign in again in another tab.");
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const result = page.getElementById("auth-rls-test-result");
      if (!result) throw new Error(`${answer.status} ${answer.statusText}`);
      panel.replaceChildren(...result.childNodes);
    } catch (error) {
      panel.textContent = String(error.message || error);
    } finally {
      button.disabled = false;
    }
  });
});
