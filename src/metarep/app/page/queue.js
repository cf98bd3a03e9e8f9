// The queue: many unlabelled photographs are ranked by the server, and labelled one by one, by keyboard or by touch.

import { groups, model, refresh } from "./model.js";
import { attempt, chooseFiles, droppable, find, make, notify, reason } from "./parts.js";
import { summaryOf } from "./queue_end.js";
import * as server from "./server.js";
import { percent, say } from "./words.js";

const MOST = 1000; // photographs in one queue: what the server accepts in one ranking
const RANKED = 24; // photographs that one ranking orders
const AGAIN = 5; // labels after which the rest is ranked anew
const NEEDY = 4; // classes that are named as in need of more images
const IMAGE = /\.(jpe?g|png|webp|bmp|tiff?|gif|ppm)$/i;

// What is being labelled. A photo is {file, encoded, state}; its state is open, learned, skipped, copy or bad. `ranking` holds
// what the server says of the next ones, `done` what can be undone, the latest last.
let work = null;
let busy = false;

export const startQueue = attempt(async (given) => {
  const files = given.filter(({ name, type }) => type.startsWith("image/") || IMAGE.test(name));
  if (!files.length) return notify(say("queue.none"), { bad: true });
  const photos = files.slice(0, MOST).map((file) => ({ file, encoded: null, state: "open" }));
  const own = (work = { photos, ranking: [], at: 0, done: [], needs: [], learned: 0, fresh: new Set() });
  find("queue-dialog").showModal();
  show("wait");
  status("");
  try {
    await encode(own);
    if (work === own) await rank();
    if (work === own && files.length > MOST) status(say("queue.most", { n: MOST }));
  } catch (error) {
    if (!(error instanceof server.Refusal)) throw error;
    if (work === own) finish(); // what was read before the refusal is not lost
    status(reason(error), { bad: true });
  }
});

// Has each photograph encoded by the server, some at a time; those that cannot be read are left out.
async function encode(own) {
  const byFile = new Map(own.photos.map((photo) => [photo.file, photo]));
  const send = async (group) => {
    const { images } = await server.suggest({ files: group }, 0);
    images.forEach(({ encoded }, i) => (byFile.get(group[i]).encoded = encoded));
  };
  let sent = 0;
  for (const group of groups(own.photos.map(({ file }) => file))) {
    if (work !== own) return; // the visitor has left
    find("queue-wait").textContent = say("queue.reading", { n: sent + 1, all: own.photos.length });
    sent += group.length;
    try {
      await send(group);
    } catch (error) {
      if (!mayBeOneFile(error)) throw error;
      for (const file of group) await send([file]).catch((refusal) => setAside(byFile.get(file), refusal));
    }
  }
}

const mayBeOneFile = (error) => error instanceof server.Refusal && [413, 422].includes(error.status);

function setAside(photo, error) {
  if (!mayBeOneFile(error)) throw error;
  photo.state = "bad";
}

const open = () => work.photos.filter(({ state, encoded }) => state === "open" && encoded);

// Ranks the photographs that are open, and shows the first.
async function rank() {
  const own = work;
  if (!own) return;
  const room = (model.summary.limits.megabytes ?? 32) * 0.9 * 2 ** 20;
  let bytes = 0;
  const sent = open().filter(({ encoded }) => (bytes += encoded.length + 200) < room);
  if (!sent.length) return finish();
  find("queue-wait").textContent = say("queue.ranking");
  const { suggestions, classes } = await server.suggest({ encoded: sent.map(({ encoded }) => encoded) }, RANKED);
  if (work !== own) return;
  work.ranking = suggestions.map((each) => ({ ...each, photo: sent[each.row] }));
  Object.assign(work, { at: 0, needs: classes.filter(({ why }) => why), learned: 0 });
  if (work.ranking.length) return draw();
  for (const photo of sent) photo.state = "copy"; // of images that the model has
  return rank();
}

const current = () => work.ranking[work.at];

// Shows one of the three states of the dialog: wait, task and end.
function show(state) {
  for (const each of ["wait", "task", "end"]) find(`queue-${each}`).hidden = each !== state;
  if (state !== "task") find(`queue-${state}`).focus();
}

function status(text, { bad = false } = {}) {
  find("queue-status").textContent = bad ? "" : text;
  find("queue-alert").textContent = bad ? text : "";
}

let address = "";

function draw() {
  const { photo, copies } = current();
  show("task");
  URL.revokeObjectURL(address);
  address = URL.createObjectURL(photo.file);
  find("queue-image").src = address;
  find("queue-image").alt = photo.file.name;
  const also = copies.length ? ` · ${say("queue.copies", { n: copies.length })}` : "";
  find("queue-name").textContent = `${photo.file.name}${also}`;
  find("queue-count").textContent = say("queue.count", { done: labelled().length, left: open().length });
  find("queue-doubt").textContent = doubt(current());
  find("queue-doubt").classList.toggle("none", !current().known);
  find("queue-guesses").replaceChildren(...guesses().map(guessButton));
  find("queue-new").value = "";
  find("queue-previous").disabled = work.at === 0;
  find("queue-next").disabled = work.at === work.ranking.length - 1;
  find("queue-undo").disabled = work.done.length === 0;
  find("queue-needs").textContent = needsText();
  find("queue-stage").focus({ preventScroll: true });
  find("queue-dialog").scrollTop = 0;
}

const labelled = () => work.done.filter(({ label }) => label !== undefined);

function doubt({ label, second, margin, known }) {
  if (!known) return say("queue.strange", { label });
  return second && margin < 0.9 ? say("queue.or", { label, second }) : say("queue.is", { label });
}

// The classes of the current photograph, the most probable first. JSON's objects do not keep the order of names that are
// numbers, so they are sorted here.
const guesses = () => Object.entries(current().guesses).sort((a, b) => b[1] - a[1]);

function guessButton([name, probability], i) {
  const line = make("i", { "aria-hidden": "true" });
  line.style.setProperty("--share", probability);
  const inside = [make("kbd", { "aria-hidden": "true" }, String(i + 1)), make("span", {}, name), line];
  const number = make("span", { class: "number" }, percent(probability));
  return make("button", { "aria-keyshortcuts": String(i + 1), onclick: () => label(name) }, ...inside, number);
}

function needsText() {
  const named = work.needs.slice(0, NEEDY).map(({ label, images }) => `${label} (${images})`);
  if (work.needs.length > NEEDY) named.push(say("queue.more", { n: work.needs.length - NEEDY }));
  return named.length ? `${say("needs.title")}: ${named.join(", ")}` : "";
}

// Does one thing at a time. Keys that are pressed meanwhile are dropped: the answer would be for a photograph not yet seen.
async function once(action) {
  if (busy || !work) return;
  busy = true;
  find("queue-task").setAttribute("aria-busy", "true");
  status("");
  try {
    await action();
  } catch (error) {
    if (!(error instanceof server.Refusal)) throw error;
    if (work && !current()) finish();
    status(reason(error), { bad: true });
  } finally {
    busy = false;
    find("queue-task").removeAttribute("aria-busy");
  }
}

const label = (name) =>
  once(async () => {
    const own = work;
    const given = current();
    const { photo } = given;
    const learned = await server.teach(name, [photo.file]);
    const isNew = !model.classes.some((each) => each.name === learned.label) && !own.fresh.has(learned.label);
    if (isNew) own.fresh.add(learned.label);
    photo.state = "learned";
    own.done.push({ given, label: learned.label, ids: learned.ids });
    own.learned += 1;
    if (work !== own) return refresh(); // the visitor has left meanwhile
    const item = photo.file.name;
    const said = learned.ids.length ? say("queue.learned", { item, label: learned.label }) : say("nothing.new", { label: learned.label });
    await advance(isNew || own.learned >= AGAIN);
    if (work === own) status(said);
  });

const skip = () =>
  once(async () => {
    const given = current();
    given.photo.state = "skipped";
    work.done.push({ given });
    await advance(false);
    status(say("queue.skipped", { item: given.photo.file.name }));
  });

// Leaves the current photograph behind it, and shows the next.
async function advance(anew) {
  work.ranking.splice(work.at, 1);
  work.at = Math.min(work.at, work.ranking.length - 1);
  if (!anew && work.ranking.length) return draw();
  await refresh();
  return rank();
}

function unlessGone(error) {
  if (error.status !== 404) throw error; // otherwise somebody else has removed the image already
}

const undo = () =>
  once(async () => {
    const last = work.done.at(-1);
    if (!last) return;
    for (const id of last.ids ?? []) await server.removeImage(id).catch(unlessGone);
    work.done.pop();
    if (last.label !== undefined) work.learned = Math.max(0, work.learned - 1);
    if (!labelled().some((each) => each.label === last.label)) work.fresh.delete(last.label);
    for (const photo of work.photos) if (photo.state === "copy") photo.state = "open"; // perhaps of this one
    last.given.photo.state = "open";
    work.ranking = work.ranking.filter(({ photo }) => photo !== last.given.photo);
    work.at = Math.max(0, work.at);
    work.ranking.splice(work.at, 0, last.given);
    draw();
    status(say("queue.undone", { item: last.given.photo.file.name }));
  });

function move(by) {
  if (busy || !work.ranking[work.at + by]) return;
  work.at += by;
  status("");
  draw();
  status(`${current().photo.file.name}: ${doubt(current())}`);
}

function finish() {
  work.ranking = [];
  find("queue-count").textContent = "";
  find("queue-end").replaceChildren(...summaryOf(work, labelled()), endButtons());
  show("end");
}

function endButtons() {
  const button = (text, onclick, kind = "") => make("button", { class: kind, onclick }, text);
  const back = work.done.length ? [button(say("undo"), undo, "quiet")] : [];
  const on = open().length ? [button(say("queue.on"), () => once(rank))] : [];
  return make("div", { class: "row ends" }, ...back, ...on, button(say("close"), leave, "strong"));
}

const leave = () => find("queue-dialog").close();

// Says what was learned, where the dialog was left before its end, and reads the model again.
function left() {
  const own = work;
  const atEnd = !find("queue-end").hidden;
  work = null;
  URL.revokeObjectURL(address);
  const n = own.done.filter(({ label }) => label !== undefined).length;
  if (n && !atEnd) notify(say("queue.sum", { n }));
  if (own.done.length) attempt(refresh)();
}

function typed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !work) return;
  if (event.target === find("queue-new")) {
    if (event.key !== "Escape" || event.isComposing) return;
    event.preventDefault(); // the first Escape leaves the field, the next one the dialog
    event.target.value = "";
    return find("queue-stage").focus({ preventScroll: true });
  }
  if (event.repeat) return;
  const key = event.key === "Process" ? event.code.replace("Key", "") : event.key; // Process: an input method is on
  if (!find("queue-end").hidden) return key.toLowerCase() === "u" ? undo() : undefined;
  if (busy || find("queue-task").hidden) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(key) ? key : null);
  const chosen = digit ? guesses()[digit - 1] : null;
  const first = guesses()[0];
  const actions = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), s: skip, u: undo, n: () => find("queue-new").focus() };
  if (key === "Enter" && event.target.closest("button")) return; // it presses that button
  const action = chosen ? () => label(chosen[0]) : key === "Enter" ? () => label(first[0]) : actions[key] ?? actions[key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
}

export function drawQueue({ summary }) {
  find("queue").hidden = summary.classes < 1;
}

export function setUpQueue() {
  const everything = (files, folders) => startQueue([...files, ...folders.flatMap(([, inside]) => inside)]);
  find("queue-files").addEventListener("click", () => chooseFiles(startQueue));
  find("queue-folder").addEventListener("click", () => chooseFiles(startQueue, { folder: true }));
  find("queue-folder").hidden = !("webkitdirectory" in document.createElement("input"));
  droppable(find("queue-drop"), everything);
  find("queue-dialog").addEventListener("keydown", typed);
  find("queue-dialog").addEventListener("close", left);
  find("queue-close").addEventListener("click", leave);
  find("queue-previous").addEventListener("click", () => move(-1));
  find("queue-next").addEventListener("click", () => move(1));
  find("queue-skip").addEventListener("click", skip);
  find("queue-undo").addEventListener("click", undo);
  find("queue-other").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = find("queue-new").value.trim();
    if (name) label(name);
  });
}
