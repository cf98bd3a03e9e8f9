// Sections that fold: a button in their heading, and what was folded is remembered.

import { find } from "/page/parts.js";

const key = (id) => `folded ${id}`;

export function setUpFolds() {
  for (const button of document.querySelectorAll("h2 .fold")) {
    const id = button.getAttribute("aria-controls");
    const fold = (shut) => {
      button.setAttribute("aria-expanded", String(!shut));
      find(id).hidden = shut;
    };
    fold(localStorage.getItem(key(id)) === "yes");
    button.addEventListener("click", () => {
      const shut = !find(id).hidden;
      localStorage.setItem(key(id), shut ? "yes" : "no");
      fold(shut);
    });
  }
}
