// Parts that the whole page uses: elements, thumbnails, the choice of files, drop targets and notices.

import * as server from "./server.js";
import { hasText, percent, say } from "./words.js";

export const find = (id) => document.getElementById(id);

// Makes an element: make("button", {class: "quiet", onclick: f}, "text", child). The attribute dataKey sets data-key.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("data")) element.dataset[name.slice(4).toLowerCase()] = value;
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// A row of a list of bars: a name, a bar as long as its share, and the share in percent.
export function bar(name, value, kind = "") {
  const line = make("i", { "aria-hidden": "true" });
  line.style.setProperty("--share", value);
  return make("li", { class: kind }, make("span", {}, name), line, make("span", { class: "number" }, percent(value)));
}

const visible = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      visible.unobserve(target);
      server.picture(Number(target.dataset.picture)).then((address) => (target.src = address), () => {});
    }
  },
  { rootMargin: "300px" },
);

// An image of the model by its number. It is fetched shortly before it becomes visible.
export function picture(id, text) {
  const image = make("img", { alt: text, dataPicture: id });
  visible.observe(image);
  return image;
}

// A button with a picture on it; its name is for screen readers.
export function thumbnail(id, name, onclick, attributes = {}) {
  return make("button", { class: "thumb", "aria-label": name, onclick, ...attributes }, picture(id, ""));
}

// Formats are listed one by one, so that phones convert their own format to one of them.
const FORMATS = "image/jpeg,image/png,image/webp,image/bmp,image/tiff,image/gif";

let input = null; // stays in the document, because a browser may discard a detached input while its dialog is open

export function chooseFiles(onFiles, { capture = false, folder = false } = {}) {
  input?.remove();
  const camera = capture && "environment";
  const own = make("input", { type: "file", accept: FORMATS, multiple: !capture, capture: camera, webkitdirectory: folder, hidden: true });
  own.addEventListener("change", () => own.files.length && onFiles([...own.files]));
  document.body.append(own);
  input = own;
  own.click();
}

// Makes an element a drop target. onDrop(files, folders): each folder is [name, files].
export function droppable(element, onDrop) {
  let depth = 0; // a child is entered before its parent is left
  const enter = (by) => {
    depth += by;
    element.classList.toggle("over", depth > 0);
  };
  element.addEventListener("dragenter", (event) => {
    event.preventDefault();
    enter(1);
  });
  element.addEventListener("dragleave", () => enter(-1));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    enter(-depth);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    const folders = entries.filter((entry) => entry.isDirectory);
    if (!folders.length) return onDrop(files, []);
    const names = new Set(folders.map((entry) => entry.name));
    const contents = await Promise.all(folders.map(async (entry) => [entry.name, await filesBelow(entry)]));
    onDrop(files.filter((file) => !names.has(file.name)), contents);
  });
}

async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return file.name.startsWith(".") ? [] : [file];
  }
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // about 100 at a time
    if (!entries.length) return files;
    for (const each of entries) files.push(...(await filesBelow(each)));
  }
}

let undo = null;

// Shows one line at the bottom of the page; with `back`, a function, it offers to undo.
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

export function undoLast() {
  const back = undo;
  hideNotice();
  return back?.();
}

// The server's messages are in English; frequent ones are shown in the language of the page.
export function reason({ status, message, item }) {
  if (status === 422 && item && hasText("error.file")) return say("error.file", { item });
  const key = `error.${status}`;
  return say("error.why", { what: say(hasText(key) ? key : "error.other"), why: status ? message : say("error.gone") });
}

export function complain(error) {
  if (!(error instanceof server.Refusal)) throw error;
  notify(reason(error), { bad: true });
}

// Wraps an action of the user, so that a refusal is shown as a notice.
export const attempt = (action) => async (...values) => {
  try {
    return await action(...values);
  } catch (error) {
    complain(error);
  }
};
