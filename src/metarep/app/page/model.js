// The model as the page knows it, and every change of it: ask the server, then read anew what it says.

import * as server from "/page/server.js";
import { complain, notify, reason } from "/page/parts.js";
import { say } from "/page/words.js";

export const model = { summary: null, classes: [], map: null };
const watchers = [];
const AT_ONCE = { files: 16, bytes: 16 << 20 }; // a request, so that progress can be seen

export const watch = (watcher) => watchers.push(watcher);

let last = "";

// Nothing is drawn anew that has not changed: a button that is replaced while it is pressed would not be heard.
export async function refresh() {
  const [summary, classes, map] = await Promise.all([server.summary(), server.classes(), server.map()]);
  const now = JSON.stringify([summary, classes]);
  if (now === last) return;
  last = now;
  Object.assign(model, { summary, classes, map });
  redraw();
}

export function redraw() {
  for (const watcher of watchers) watcher(model);
}

// Teaches a class files, some at a time; what cannot be read is named and the rest is learned. Returns the numbers.
export async function teach(name, files) {
  const ids = [];
  const bad = [];
  for (const some of groups(files)) {
    if (files.length > some.length) notify(say("learning", { n: ids.length + bad.length + 1, all: files.length }));
    try {
      ids.push(...(await server.teach(name, some)));
    } catch (error) {
      if (!(error instanceof server.Refusal)) throw error;
      const unreadable = error.status === 422 && some.length > 1;
      if (!unreadable) bad.push(error);
      for (const file of unreadable ? some : []) {
        await server.teach(name, [file]).then((one) => ids.push(...one), (own) => bad.push(own));
      }
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
  else notify(say("learned.n", { n: ids.length, label: name }), { back: () => back().catch(complain) });
  return ids;
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

export async function move(id, label) {
  const before = model.classes.find((each) => each.ids.includes(id))?.name;
  await server.move(id, label);
  await refresh();
  const back = () => server.move(id, before).then(refresh).catch(complain);
  notify(say("moved", { label }), { back: before && before !== label ? back : null });
}

export async function forget(id, label) {
  await server.removeImage(id);
  await refresh();
  notify(say("removed", { label }));
}
