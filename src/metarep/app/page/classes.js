// The classes: a card for each, where its images are added, viewed and removed. Many classes collapse and can be searched.

import { openCamera } from "./camera.js";
import { confirm, enterName } from "./dialogs.js";
import { openImage } from "./image.js";
import { change, model, teach } from "./model.js";
import { attempt, chooseFiles, complain, droppable, find, make, notify, picture, thumbnail } from "./parts.js";
import * as server from "./server.js";
import { say } from "./words.js";

const SHOWN = 5; // images of a class before it is opened
const MANY = 12; // classes, above which they collapse and can be searched
const AT_FIRST = 20; // collapsed classes that are shown before the user asks for all
const opened = new Set(); // classes of which all images are shown
const expanded = new Set(); // classes that are not collapsed, where there are many
let searchText = "";
let all = false;

const comparable = (text) => text.normalize("NFKC").toLocaleLowerCase();

export function drawClasses({ classes }) {
  const focused = document.activeElement?.dataset.key; // the cards are made again, and the focus must stay
  const many = classes.length > MANY;
  const matching = classes.filter(({ name }) => !many || comparable(name).includes(comparable(searchText)));
  const drawn = many && !all && !searchText ? matching.slice(0, AT_FIRST) : matching;
  find("search").hidden = !many;
  find("search-result").textContent = many && searchText ? searchResult(matching.length, classes.length) : "";
  find("grid").classList.toggle("many", many);
  const order = [find("cards"), find("new")];
  if (many) order.reverse(); // nobody would find the form below a hundred classes
  if (find("grid").firstElementChild !== order[0]) find("grid").prepend(order[0]);
  find("all").hidden = drawn.length === matching.length;
  find("all").textContent = say("classes.all", { n: classes.length });
  find("cards").replaceChildren(...drawn.map((each) => card(each, many)));
  find("names").replaceChildren(...classes.map(({ name }) => make("option", { value: name })));
  if (focused) document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

const searchResult = (n, all) => (n ? say("search.some", { n, all }) : say("search.none"));

// Scrolls to the card of a class and puts the focus on it.
export function showClass(name) {
  if (model.classes.length > MANY) {
    find("search-name").value = searchText = name;
    expanded.add(name);
  }
  drawClasses(model);
  const target = [...find("cards").children].find((each) => each.getAttribute("aria-label") === name);
  target?.scrollIntoView({ block: "center" });
  target?.querySelector("button")?.focus({ preventScroll: true });
}

function toggle(set, name) {
  if (!set.delete(name)) set.add(name);
  drawClasses(model);
}

// A line about a class: how many images it has, how many of them were recognised, and which names are almost the same.
// In the page without a server, a class also has `fixed`, whether it belongs to the model, and `added`, how many of its
// images were added there.
function facts({ name, images, alike = [], fixed = true, added = 0 }) {
  const own = model.summary?.trust.per_class?.find(({ label }) => label === name);
  const parts = [say("images.n", { n: images })];
  if (own && own.accuracy !== null) parts.push(`${Math.round(own.accuracy)} %`);
  if (!fixed) parts.push(say("web.added"));
  else if (added) parts.push(say("web.added.n", { n: added }));
  const warnings = [];
  if (own?.needs) warnings.push(say("needs"));
  if (alike.length) warnings.push(say("alike", { names: alike.join(", ") }));
  const lines = warnings.map((text) => make("span", { class: "needs" }, text));
  return make("span", { class: "note" }, parts.join(" · "), ...lines);
}

function card(each, many) {
  const { name, ids } = each;
  const learn = attempt((files) => teach(name, files));
  const article = make("article", { class: "card drop", "aria-label": name });
  droppable(article, (files, folders) => learn([...files, ...folders.flatMap(([, inside]) => inside)]));
  const collapsed = many && !expanded.has(name);
  const fold = {
    "aria-expanded": String(!collapsed),
    "aria-label": `${say(collapsed ? "expand" : "collapse")}: ${name}`,
    dataKey: `fold ${name}`,
    onclick: () => toggle(expanded, name),
  };
  if (collapsed) {
    article.classList.add("folded");
    article.append(make("button", fold, ids.length ? picture(ids[0], "") : make("i", { class: "blank" }), make("span", {}, name, facts(each))));
    return article;
  }
  const title = make("h3", {}, many ? make("button", { class: "fold", ...fold }, name) : name);
  article.append(
    make("header", {}, title, facts(each)),
    make("div", { class: "thumbs" }, ...thumbnails(each)),
    make("div", { class: "row" }, ...actions(each, learn)),
  );
  return article;
}

function thumbnails({ name, ids }) {
  const whole = opened.has(name);
  const shown = whole ? ids : ids.slice(0, ids.length > SHOWN ? SHOWN - 1 : SHOWN);
  const thumbs = shown.map((id) => thumbnail(id, `${name}, ${id}`, () => openImage(id), { dataKey: `image ${id}` }));
  if (ids.length > SHOWN) {
    const hidden = ids.length - shown.length;
    const label = whole ? say("fewer") : say("more", { n: hidden });
    const onclick = () => toggle(opened, name);
    const attributes = { class: "thumb rest", "aria-label": label, dataKey: `more ${name}`, onclick };
    thumbs.push(make("button", attributes, whole ? label : `+${hidden}`));
  }
  return thumbs;
}

function actions({ name, images, fixed = false }, learn) {
  const button = (word, text, onclick, kind = "quiet") => {
    const label = `${say(word)}: ${name}`;
    return make("button", { class: kind, "aria-label": label, dataKey: `${word} ${name}`, onclick }, text);
  };
  return [
    button("add", say("add.short"), () => chooseFiles(learn), ""),
    button("camera", say("camera"), () => openCamera(name, learn, { many: true })),
    ...(fixed ? [] : [button("rename", say("rename"), () => rename(name))]),
    ...(fixed ? [] : [button("remove", say("remove"), () => remove(name, images))]),
  ];
}

const rename = attempt(async (name) => {
  const title = say("rename.title", { label: name });
  const to = await enterName(title, say("rename"), name);
  if (!to || to === name) return;
  const merge = model.classes.some((each) => each.name === to);
  if (merge && !(await confirm(title, say("rename.merge", { label: to }), say("merge")))) return;
  await change(server.rename(name, to, merge), say("renamed", { label: to }));
});

const remove = attempt(async (name, n) => {
  const text = say("remove.text", { images: say("images.n", { n }) });
  if (!(await confirm(say("remove.title", { label: name }), text, say("remove")))) return;
  await change(server.removeClass(name), say("removed", { label: name }));
});

export function setUpClasses() {
  find("search-name").addEventListener("input", ({ target }) => {
    searchText = target.value.trim();
    drawClasses(model);
  });
  find("all").addEventListener("click", () => {
    all = true;
    drawClasses(model);
  });
  setUpNewClass();
}

function setUpNewClass() {
  const input = find("new-name");
  const withName = (action) => {
    const name = input.value.trim();
    if (name) return action(name);
    notify(say("name.needed"), { bad: true });
    input.focus();
  };
  const learn = attempt(async (name, files) => {
    const ids = await teach(name, files);
    if (ids.length) input.value = "";
  });
  find("new").addEventListener("submit", (event) => {
    event.preventDefault();
    withName((name) => chooseFiles((files) => learn(name, files)));
  });
  find("new-camera").addEventListener("click", () =>
    withName((name) => openCamera(name, (files) => learn(name, files), { many: true })),
  );
  droppable(find("new"), async (files, folders) => {
    for (const [name, inside] of folders) await teach(name, inside).catch(complain);
    if (files.length) withName((name) => learn(name, files));
  });
}
