// The classes: a card each, where images are added, looked at, moved and forgotten.

import { openCamera } from "/page/camera.js";
import { openImage } from "/page/image.js";
import { model, refresh, teach } from "/page/model.js";
import { attempt, chooseFiles, complain, droppable, find, make, notify, picture } from "/page/parts.js";
import * as server from "/page/server.js";
import { say } from "/page/words.js";

const SHOWN = 5; // images of a class, before it is opened
const open = new Set();

export function drawClasses({ classes }) {
  const focused = document.activeElement?.dataset.key; // the cards are made anew, and who types must not notice
  find("cards").replaceChildren(...classes.map(card));
  find("names").replaceChildren(...classes.map(({ name }) => make("option", { value: name })));
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function card({ name, images, ids }) {
  const all = open.has(name);
  const shown = all ? ids : ids.slice(0, ids.length > SHOWN ? SHOWN - 1 : SHOWN);
  const thumbs = shown.map((id) =>
    make("button", { class: "thumb", "aria-label": `${name}, ${id}`, dataKey: `image ${id}`, onclick: () => openImage(id) }, picture(id, "")),
  );
  const toggle = () => (all ? open.delete(name) : open.add(name), drawClasses(model));
  if (ids.length > SHOWN) {
    const text = all ? say("fewer") : `+${ids.length - shown.length}`;
    const label = all ? say("fewer") : say("more", { n: ids.length - shown.length });
    thumbs.push(make("button", { class: "thumb rest", "aria-label": label, dataKey: `more ${name}`, onclick: toggle }, text));
  }
  const button = (word, action, kind = "quiet") => {
    const short = word === "add" ? say("add.short") : say(word);
    return make("button", { class: kind, "aria-label": `${say(word)}: ${name}`, dataKey: `${word} ${name}`, onclick: action }, short);
  };
  const learn = attempt((files) => teach(name, files));
  const made = make(
    "article",
    { class: "card drop", "aria-label": name },
    make("header", {}, make("h3", {}, name), make("span", { class: "note" }, say("images.n", { n: images }))),
    make("div", { class: "thumbs" }, ...thumbs),
    make(
      "div",
      { class: "row" },
      button("add", () => chooseFiles(learn), ""),
      button("camera", () => openCamera(name, learn, { many: true })),
      button("rename", () => rename(name)),
      button("remove", () => remove(name, images)),
    ),
  );
  droppable(made, (files, folders) => learn([...files, ...folders.flatMap(([, inside]) => inside)]));
  return made;
}

// Asks for a name, or, without one, for a yes. Resolves to the name, to true, or to null.
function ask(title, text, yes, name = null) {
  const dialog = find("name-dialog");
  find("name-title").textContent = title;
  find("name-text").textContent = text;
  find("name-yes").textContent = yes;
  find("name-yes").className = name === null ? "danger" : "strong";
  find("name-input").hidden = name === null;
  find("name-input").required = name !== null;
  find("name-input").value = name ?? "";
  dialog.returnValue = "";
  find("name-yes").value = "yes";
  dialog.showModal();
  if (name !== null) find("name-input").select();
  return new Promise((done) =>
    dialog.addEventListener(
      "close",
      () => done(dialog.returnValue === "yes" ? (name === null ? true : find("name-input").value.trim()) : null),
      { once: true },
    ),
  );
}

const rename = attempt(async (name) => {
  const to = await ask(say("rename.title", { label: name }), "", say("rename"), name);
  if (!to || to === name) return;
  const merge = model.classes.some((each) => each.name === to);
  if (merge && !(await ask(say("rename.title", { label: name }), say("rename.merge", { label: to }), say("merge")))) return;
  await server.rename(name, to, merge);
  await refresh();
});

const remove = attempt(async (name, n) => {
  const text = say("remove.text", { images: say("images.n", { n }) });
  if (!(await ask(say("remove.title", { label: name }), text, say("remove")))) return;
  await server.removeClass(name);
  await refresh();
  notify(say("removed", { label: name }));
});

export function setUpClasses() {
  const input = find("new-name");
  const named = (then) => {
    const name = input.value.trim();
    if (!name) return notify(say("name.needed"), { bad: true }), input.focus();
    then(name);
  };
  const learn = attempt(async (name, files) => {
    if ((await teach(name, files)).length) input.value = "";
  });
  find("new").addEventListener("submit", (event) => {
    event.preventDefault();
    named((name) => chooseFiles((files) => learn(name, files)));
  });
  find("new-camera").addEventListener("click", () =>
    named((name) => openCamera(name, (files) => learn(name, files), { many: true })),
  );
  droppable(find("new"), async (files, folders) => {
    for (const [name, inside] of folders) await teach(name, inside).catch(complain);
    if (files.length) named((name) => learn(name, files));
  });
  find("name-cancel").addEventListener("click", () => find("name-dialog").close());
}
