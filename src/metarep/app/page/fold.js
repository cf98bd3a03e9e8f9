// Sections that collapse: each has a button in its heading, and the browser remembers which are collapsed.

import { find } from "./parts.js";

const key = (id) => `folded ${id}`;

export function setUpFolds() {
  for (const button of document.querySelectorAll("h2 .fold")) {
    const id = button.getAttribute("aria-controls");
    const collapse = (collapsed) => {
      button.setAttribute("aria-expanded", String(!collapsed));
      find(id).hidden = collapsed;
    };
    collapse(localStorage.getItem(key(id)) === "yes");
    button.addEventListener("click", () => {
      const collapsed = !find(id).hidden;
      localStorage.setItem(key(id), collapsed ? "yes" : "no");
      collapse(collapsed);
    });
  }
}
