// The model as the page knows it, and every change of it: ask the server, then read anew what it says.

import * as server from "/page/server.js";
import { complain, notify, reason } from "/page/parts.js";
import { say } from "/page/words.js";

export const model = { summary: null, classes: [] };
const watchers = [];
const AT_ONCE = { files: 16, bytes: 16 << 20 }; // a request, so that progress can be seen

export const watch = (watcher) => watchers.push(watcher);

let last = "";

// Nothing is drawn anew that has not changed: a button that is replaced while it is pressed would not be heard.
export async function refresh() {
  const [summary, classes] = await Promise.all([server.summary(), server.classes()]);
  const now = JSON.stringify([summary, classes]);
  if (now === last) return;
  last = now;
  Object.assign(model, { summary, classes });
  redraw();
}

export function redraw() {
  for (const watcher of watchers) watcher(model);
}

// Teaches a class files, some at a time; what cannot be read is named and the rest is learned. Returns the numbers.
export async function teach(given, files) {
  let name = given;
  const ids = [];
  const bad = [];
  const repeats = [];
  const learn = async (some) => {
    const learned = await server.teach(given, some);
    name = learned.label; // as it is kept
    ids.push(...learned.ids);
    repeats.push(...learned.repeats);
  };
  let done = 0;
  for (const some of groups(files)) {
    if (files.length > some.length) notify(say("learning", { n: done + 1, all: files.length }));
    done += some.length;
    try {
      await learn(some);
    } catch (error) {
      if (!(error instanceof server.Refusal)) throw error;
      const unreadable = error.status === 422 && some.length > 1;
      if (!unreadable) bad.push(error);
      for (const file of unreadable ? some : []) await learn([file]).catch((own) => bad.push(own));
      if (!unreadable && error.status !== 422) break; // the next would fare no better
    }
  }
  const back = async () => {
    for (const id of ids) await server.removeImage(id);
    await refresh();
    notify(say("undone"));
  };
  if (ids.length) await refresh();
  if (bad.length === 1) complain(bad[0]);
  else if (bad.length) notify(say("bad", { n: bad.length, why: bad.map(reason).join(" ") }), { bad: true });
  else {
    const learned = ids.length ? say("learned.n", { n: ids.length, label: name }) : say("nothing.new", { label: name });
    notify([learned, ...told(repeats, name)].join(" "), { back: ids.length ? () => back().catch(complain) : null });
  }
  return ids;
}

const NAMED = 3; // repeated pictures

// Sentences on pictures that the model had: in this class, where they are left out, and in others.
function told(repeats, name) {
  const kinds = { left: repeats.filter(({ label }) => label === name), other: repeats.filter(({ label }) => label !== name) };
  return Object.entries(kinds).filter(([, some]) => some.length).map(([kind, some]) => {
    const which = some.slice(0, NAMED).map(({ item, same_as: same, label }) => say(`repeat.${kind}`, { item, same, label }));
    if (some.length > NAMED) which.push(say("repeat.more", { n: some.length - NAMED }));
    return say(`repeats.${kind}`, { n: some.length, which: which.join("; ") });
  });
}

function* groups(files) {
  let some = [];
  let size = 0;
  for (const file of files) {
    const full = some.length >= AT_ONCE.files || some.length >= (model.summary?.limits.files ?? AT_ONCE.files);
    if (some.length && (full || size + file.size > AT_ONCE.bytes)) {
      yield some;
      [some, size] = [[], 0];
    }
    some.push(file);
    size += file.size;
  }
  if (some.length) yield some;
}

// Runs a change, which resolves to its number, says it, and offers to take it back.
export async function change(asked, text) {
  const number = await asked;
  await refresh();
  const back = async () => {
    await server.undo(number);
    await refresh();
    notify(say("taken.back"));
  };
  notify(text, { back: number === null ? null : () => back().catch(complain) });
}

export const move = (id, label) => change(server.move(id, label), say("moved", { label }));

export const forget = (id, label) => change(server.removeImage(id), say("removed", { label }));
