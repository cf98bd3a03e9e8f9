// Small parts that all of the page is made of: elements, thumbnails, places to drop files on, notices.

import * as server from "/page/server.js";
import { knows, say } from "/page/words.js";

export const find = (id) => document.getElementById(id);

// make("button", {class: "quiet", onclick: f}, "text", child)
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("data")) made.dataset[name.slice(4).toLowerCase()] = value;
    else if (value !== false && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      server.picture(Number(target.dataset.picture)).then((address) => (target.src = address), () => {});
    }
  },
  { rootMargin: "300px" },
);

// An image of the model by its number, fetched when it is about to be seen.
export function picture(id, text) {
  const image = make("img", { alt: text, dataPicture: id });
  seen.observe(image);
  return image;
}

const KINDS = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/gif"; // named, so that phones convert theirs

let input = null; // in the document, or a browser may forget it while somebody chooses

export function chooseFiles(then, { capture = false } = {}) {
  input?.remove();
  const camera = capture && "environment";
  const own = make("input", { type: "file", accept: KINDS, multiple: !capture, capture: camera, hidden: true });
  own.addEventListener("change", () => own.files.length && then([...own.files]));
  document.body.append(own);
  input = own;
  own.click();
}

// Lets files be dropped on an element. then(files, folders): folders are [name, files].
export function droppable(element, then) {
  let inside = 0; // entering a child comes before leaving its parent
  const mark = (by) => element.classList.toggle("over", (inside += by) > 0);
  element.addEventListener("dragenter", (event) => (event.preventDefault(), mark(1)));
  element.addEventListener("dragleave", () => mark(-1));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    mark(-inside);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    const folders = entries.filter((entry) => entry.isDirectory);
    if (!folders.length) return then(files, []);
    const names = new Set(folders.map((entry) => entry.name));
    const deep = await Promise.all(folders.map(async (entry) => [entry.name, await filesBelow(entry)]));
    then(files.filter((file) => !names.has(file.name)), deep);
  });
}

async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    return file.name.startsWith(".") ? [] : [file];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // about a hundred at a time
    if (!some.length) return found;
    for (const each of some) found.push(...(await filesBelow(each)));
  }
}

let undo = null;

export function notify(text, { bad = false, back = null } = {}) {
  undo = back;
  find("notice-text").textContent = bad ? "" : text;
  find("notice-alert").textContent = bad ? text : "";
  find("notice").classList.toggle("bad", bad);
  find("notice-undo").hidden = !back;
  find("notice").hidden = false;
}

export function hideNotice() {
  find("notice").hidden = true;
}

export function takeBack() {
  const back = undo;
  hideNotice();
  return back?.();
}

// The server speaks English; what is common is said in the language of the page.
export function reason({ status, message, item }) {
  if (status === 422 && item && knows("error.file")) return say("error.file", { item });
  const key = `error.${status}`;
  return say("error.why", { what: say(knows(key) ? key : "error.other"), why: status ? message : say("error.gone") });
}

export function complain(error) {
  if (!(error instanceof server.Refusal)) throw error;
  notify(reason(error), { bad: true });
}

// Runs what somebody asked for; a refusal is told.
export const attempt = (action) => async (...given) => {
  try {
    return await action(...given);
  } catch (error) {
    complain(error);
  }
};
