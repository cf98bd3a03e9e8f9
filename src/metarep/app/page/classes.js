// The classes: a card each, where images are added, looked at, moved and forgotten. Many are folded, and can be searched.

import { openCamera } from "/page/camera.js";
import { openImage } from "/page/image.js";
import { change, model, teach } from "/page/model.js";
import { attempt, chooseFiles, complain, droppable, find, make, notify, picture } from "/page/parts.js";
import * as server from "/page/server.js";
import { say } from "/page/words.js";

const SHOWN = 5; // images of a class, before it is opened
const MANY = 12; // classes, above which they are folded and searched
const AT_FIRST = 20; // folded classes
const open = new Set(); // classes of which all images are shown
const unfolded = new Set();
let wanted = ""; // what is searched for
let all = false;

const plain = (text) => text.normalize("NFKC").toLocaleLowerCase();

export function drawClasses({ classes }) {
  const focused = document.activeElement?.dataset.key; // the cards are made anew, and who types must not notice
  const many = classes.length > MANY;
  const found = classes.filter(({ name }) => !many || plain(name).includes(plain(wanted)));
  const drawn = many && !all && !wanted ? found.slice(0, AT_FIRST) : found;
  find("search").hidden = !many;
  find("search-found").textContent = !many || !wanted ? "" : found.length ? say("found", { n: found.length, all: classes.length }) : say("found.none");
  find("grid").classList.toggle("many", many);
  const order = [find("cards"), find("new")]; // below a hundred classes nobody would find the form
  if (many) order.reverse();
  if (find("grid").firstElementChild !== order[0]) find("grid").prepend(order[0]);
  find("all").hidden = drawn.length === found.length;
  find("all").textContent = say("found.all", { n: classes.length });
  find("cards").replaceChildren(...drawn.map((each) => card(each, many)));
  find("names").replaceChildren(...classes.map(({ name }) => make("option", { value: name })));
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

// Shows one class, wherever on the page it is spoken of.
export function showClass(name) {
  if (model.classes.length > MANY) {
    find("search-name").value = wanted = name;
    unfolded.add(name);
  }
  drawClasses(model);
  const found = [...find("cards").children].find((each) => each.getAttribute("aria-label") === name);
  found?.scrollIntoView({ block: "center" });
  found?.querySelector("button")?.focus({ preventScroll: true });
}

// What is known of a class: how many images, in how many of them it was recognised, and what is called almost the same.
function facts({ name, images, alike = [] }) {
  const own = model.summary?.trust.per_class?.find(({ label }) => label === name);
  const told = [say("images.n", { n: images })];
  if (own && own.accuracy !== null) told.push(`${Math.round(own.accuracy)} %`);
  const needs = own?.needs ? [make("span", { class: "needs" }, say("needs"))] : [];
  const twins = alike.length ? [make("span", { class: "needs" }, say("alike", { names: alike.join(", ") }))] : [];
  return make("span", { class: "note" }, told.join(" · "), ...needs, ...twins);
}

function card(each, many) {
  const { name, images, ids } = each;
  const learn = attempt((files) => teach(name, files));
  const made = make("article", { class: "card drop", "aria-label": name });
  droppable(made, (files, folders) => learn([...files, ...folders.flatMap(([, inside]) => inside)]));
  const fold = () => (unfolded.has(name) ? unfolded.delete(name) : unfolded.add(name), drawClasses(model));
  const folds = (shut) => ({ "aria-expanded": String(!shut), "aria-label": `${say(shut ? "open" : "fold")}: ${name}`, dataKey: `fold ${name}`, onclick: fold });
  if (many && !unfolded.has(name)) {
    made.classList.add("folded");
    made.append(make("button", folds(true), picture(ids[0], ""), make("span", {}, name, facts(each))));
    return made;
  }
  const whole = open.has(name);
  const shown = whole ? ids : ids.slice(0, ids.length > SHOWN ? SHOWN - 1 : SHOWN);
  const thumbs = shown.map((id) =>
    make("button", { class: "thumb", "aria-label": `${name}, ${id}`, dataKey: `image ${id}`, onclick: () => openImage(id) }, picture(id, "")),
  );
  const toggle = () => (whole ? open.delete(name) : open.add(name), drawClasses(model));
  if (ids.length > SHOWN) {
    const text = whole ? say("fewer") : `+${ids.length - shown.length}`;
    const label = whole ? say("fewer") : say("more", { n: ids.length - shown.length });
    thumbs.push(make("button", { class: "thumb rest", "aria-label": label, dataKey: `more ${name}`, onclick: toggle }, text));
  }
  const button = (word, action, kind = "quiet") => {
    const short = word === "add" ? say("add.short") : say(word);
    return make("button", { class: kind, "aria-label": `${say(word)}: ${name}`, dataKey: `${word} ${name}`, onclick: action }, short);
  };
  made.append(
    make("header", {}, make("h3", {}, many ? make("button", { class: "fold", ...folds(false) }, name) : name), facts(each)),
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
  await change(server.rename(name, to, merge), say("renamed", { label: to }));
});

const remove = attempt(async (name, n) => {
  const text = say("remove.text", { images: say("images.n", { n }) });
  if (!(await ask(say("remove.title", { label: name }), text, say("remove")))) return;
  await change(server.removeClass(name), say("removed", { label: name }));
});

export function setUpClasses() {
  find("search-name").addEventListener("input", ({ target }) => ((wanted = target.value.trim()), drawClasses(model)));
  find("all").addEventListener("click", () => ((all = true), drawClasses(model)));
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
