// The dialog of one image of the model: its class, the images most similar to it, and how to move or remove it.

import { model, move, removeImage } from "./model.js";
import { attempt, find, make, thumbnail } from "./parts.js";
import * as server from "./server.js";
import { say } from "./words.js";

let current = null;

export const openImage = attempt(async (id) => {
  const label = model.classes.find(({ ids }) => ids.includes(id))?.name;
  if (label === undefined) return;
  current = { id, item: `${label}, ${id}` };
  const [images, address, near] = await Promise.all([server.imagesOf(label), server.picture(id), server.similarTo(id)]);
  current.item = images.find((image) => image.id === id)?.item ?? current.item;
  find("image-title").textContent = current.item;
  find("image-note").textContent = say("image.in", { label });
  find("image-large").src = address;
  find("image-large").alt = current.item;
  find("image-to").value = "";
  find("image-near").replaceChildren(...near.map(nearItem));
  if (!find("image-dialog").open) find("image-dialog").showModal();
});

// A similar image: its thumbnail, its class and its similarity.
export function nearItem({ id, item, label, similarity }) {
  const number = similarity.toFixed(2);
  const name = say("near.label", { label, similarity: number });
  return make(
    "li",
    {},
    thumbnail(id, name, () => openImage(id), { title: item }),
    make("span", { class: "label" }, label),
    make("span", { class: "note" }, number),
  );
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
    attempt(removeImage)(current.id, current.item);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // a click beside the dialog
}
