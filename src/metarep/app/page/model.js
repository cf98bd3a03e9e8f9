// The model as the page knows it, and every change of it: send the change, then read the model again.

import * as server from "./server.js";
import { complain, notify, reason } from "./parts.js";
import { say } from "./words.js";

export const model = { summary: null, classes: [] };
const watchers = [];
const UPLOAD = { files: 16, bytes: 16 << 20 }; // of one request; small, so that progress can be seen
const NAMED = 3; // repeated images that a notice names

// Registers a function that is called with the model whenever it has changed.
export const watch = (watcher) => watchers.push(watcher);

let last = "";
let read = async () => {
  const [summary, classes] = await Promise.all([server.summary(), server.classes()]);
  return { summary, classes };
};

// Sets another way to read the model: reader() resolves to what the model is.
export const readBy = (reader) => (read = reader);

// Reads the model again. Nothing is drawn if it has not changed: a button that is replaced while it is pressed would
// not receive the click.
export async function refresh() {
  const found = await read();
  const now = JSON.stringify(found);
  if (now === last) return;
  last = now;
  Object.assign(model, found);
  redraw();
}

export function redraw() {
  for (const watcher of watchers) watcher(model);
}

// Adds files to a class, some at a time. Files that cannot be read are named, and the rest are learned. Resolves to the
// numbers of the new images.
export async function teach(className, files) {
  const { name, ids, repeats, refusals } = await upload(className, files);
  if (ids.length) await refresh();
  if (refusals.length === 1) complain(refusals[0]);
  else if (refusals.length) notify(say("bad", { n: refusals.length, why: refusals.map(reason).join(" ") }), { bad: true });
  else {
    const learned = ids.length ? say("learned.n", { n: ids.length, label: name }) : say("nothing.new", { label: name });
    const back = ids.length ? () => unlearn(ids).catch(complain) : null;
    notify([learned, ...repeatSentences(repeats, name)].join(" "), { back });
  }
  return ids;
}

async function upload(className, files) {
  const result = { name: className, ids: [], repeats: [], refusals: [] };
  const send = async (group) => {
    const learned = await server.teach(className, group);
    result.name = learned.label; // as the model calls the class
    result.ids.push(...learned.ids);
    result.repeats.push(...learned.repeats);
  };
  let sent = 0;
  for (const group of groups(files)) {
    if (files.length > group.length) notify(say("learning", { n: sent + 1, all: files.length }));
    sent += group.length;
    try {
      await send(group);
    } catch (error) {
      if (!(error instanceof server.Refusal)) throw error;
      if (error.status === 422 && group.length > 1) {
        for (const file of group) await send([file]).catch((refusal) => result.refusals.push(refusal));
      } else {
        result.refusals.push(error);
        if (error.status !== 422) break; // the next group would be refused too
      }
    }
  }
  return result;
}

async function unlearn(ids) {
  for (const id of ids) await server.removeImage(id);
  await refresh();
  notify(say("unlearned"));
}

// Sentences about files that the model had already: in this class, where they are left out, and in other classes.
function repeatSentences(repeats, name) {
  const kinds = {
    left: repeats.filter(({ label }) => label === name),
    other: repeats.filter(({ label }) => label !== name),
  };
  const sentence = ([kind, images]) => {
    const which = images.slice(0, NAMED).map(({ item, same_as: same, label }) => say(`repeat.${kind}`, { item, same, label }));
    if (images.length > NAMED) which.push(say("repeat.more", { n: images.length - NAMED }));
    return say(`repeats.${kind}`, { n: images.length, which: which.join("; ") });
  };
  return Object.entries(kinds).filter(([, images]) => images.length).map(sentence);
}

// Divides files into groups for one request each.
export function* groups(files) {
  const most = Math.min(UPLOAD.files, model.summary?.limits.files ?? UPLOAD.files);
  let group = [];
  let size = 0;
  for (const file of files) {
    if (group.length && (group.length >= most || size + file.size > UPLOAD.bytes)) {
      yield group;
      [group, size] = [[], 0];
    }
    group.push(file);
    size += file.size;
  }
  if (group.length) yield group;
}

// Waits for a change, which resolves to its number; then shows `text` and offers to undo the change.
export async function change(request, text) {
  const number = await request;
  await refresh();
  const back = async () => {
    await server.undo(number);
    await refresh();
    notify(say("undone"));
  };
  notify(text, { back: number === null ? null : () => back().catch(complain) });
}

export const move = (id, label) => change(server.move(id, label), say("moved", { label }));

export const removeImage = (id, label) => change(server.removeImage(id), say("removed", { label }));
