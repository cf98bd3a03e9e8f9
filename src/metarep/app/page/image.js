// One image of the model, large: where it belongs, what is like it, and how to forget it.

import { forget, model, move } from "/page/model.js";
import { attempt, find, make, picture } from "/page/parts.js";
import * as server from "/page/server.js";
import { say } from "/page/words.js";

let current = null;

export const openImage = attempt(async (id) => {
  const label = model.classes.find((each) => each.ids.includes(id))?.name;
  if (label === undefined) return;
  current = { id, item: `${label}, ${id}` };
  const [images, address, near] = await Promise.all([server.imagesOf(label), server.picture(id), server.like(id)]);
  current.item = images.find((each) => each.id === id)?.item ?? current.item;
  find("image-title").textContent = current.item;
  find("image-note").textContent = say("image.in", { label });
  find("image-large").src = address;
  find("image-large").alt = current.item;
  find("image-to").value = "";
  find("image-near").replaceChildren(...near.map(nearItem));
  if (!find("image-dialog").open) find("image-dialog").showModal();
});

// A neighbour, as a thumbnail with its class below it.
export function nearItem({ id, item, label, similarity }) {
  const text = say("near.one", { label, similarity: similarity.toFixed(2) });
  const button = make("button", { class: "thumb", title: item, "aria-label": text, onclick: () => openImage(id) }, picture(id, ""));
  return make("li", {}, button, make("span", { class: "label" }, label), make("span", { class: "note" }, similarity.toFixed(2)));
}

export function setUpImage() {
  const dialog = find("image-dialog");
  find("image-close").addEventListener("click", () => dialog.close());
  find("image-move").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
    attempt(move)(current.id, find("image-to").value.trim());
  });
  find("image-remove").addEventListener("click", () => {
    dialog.close();
    attempt(forget)(current.id, current.item);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
}
