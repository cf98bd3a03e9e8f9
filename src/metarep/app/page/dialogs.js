// The dialog that asks for a name or for a confirmation.

import { find } from "./parts.js";

// Resolves to true if the user confirms, otherwise to false.
export function confirm(title, text, yes) {
  find("name-input").hidden = true;
  find("name-input").required = false;
  return open(title, text, yes, "danger");
}

// Resolves to the name that the user enters, or to null if the dialog is cancelled.
export async function enterName(title, yes, name) {
  const input = find("name-input");
  input.hidden = false;
  input.required = true;
  input.value = name;
  const closed = open(title, "", yes, "strong");
  input.select();
  return (await closed) ? input.value.trim() : null;
}

function open(title, text, yes, kind) {
  const dialog = find("name-dialog");
  find("name-title").textContent = title;
  find("name-text").textContent = text;
  find("name-yes").textContent = yes;
  find("name-yes").className = kind;
  find("name-yes").value = "yes";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

export function setUpDialogs() {
  find("name-cancel").addEventListener("click", () => find("name-dialog").close());
}
