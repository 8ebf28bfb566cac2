// Text fields that offer what the server finds. Without this script the value is typed.
"use strict";
{
  const $ = django.jQuery;

  // The field becomes a list with the same name and id; what is typed may be taken as it is.
  function pick(input) {
    const list = document.createElement("select");
    list.name = input.name;
    list.id = input.id;
    list.append(new Option("", ""));
    if (input.value) list.append(new Option(input.value, input.value, true, true));
    const beside = input.dataset.pickBeside;
    input.replaceWith(list);
    $(list).select2({
      theme: "admin-autocomplete",
      width: "style",
      placeholder: "",
      allowClear: !input.required,
      tags: true,
      insertTag(found, typed) {
        if (!found.some((each) => each.id === typed.id)) found.push(typed);
      },
      ajax: {
        url: input.dataset.pick,
        dataType: "json",
        delay: 150,
        data({ term, page }) {
          const query = { term, page };
          if (beside) query[beside] = list.form.elements[beside].value;
          return query;
        },
      },
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const input of document.querySelectorAll("input.auth-rls-pick")) pick(input);
  });
}
