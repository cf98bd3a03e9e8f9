// What server.js is for the page of a server, without a server: the same functions, computed in the page. The other
// modules are the same for both.

import { answer, classesWith, cosine } from "./answers.js";
import { modelFacts, run } from "./network.js";
import { readPixels, toPng, Unreadable } from "./pixels.js";
import { allRecords, dropRecord, openStore, putRecord } from "./store.js";
import { say } from "./words.js";
import { zip } from "./zip.js";

const SAME = 0.99999; // cosine from which two images are the same
const LONGEST = 80; // characters of a name
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let opening = null;
let facts = null;
let records = []; // what was added: {id, label, item, png, points, encoding}
let together = null; // the classes of the model with these
const undos = []; // how each change is taken back
export let kept = true; // whether the browser keeps what is added

let loading = null; // summary and classes are asked for at the same time

// Opens the model and the storage once; then reads the records, which another window may have changed.
function load() {
  loading ??= read().finally(() => (loading = null));
  return loading;
}

async function read() {
  opening ??= modelFacts().then(async (known) => {
    kept = await openStore(`metarep ${known.name} ${new URL(".", location.href).pathname}`);
    facts = known;
  });
  try {
    await opening;
  } catch (error) {
    opening = null;
    throw new Refusal(500, error.message);
  }
  records = await allRecords();
  for (const each of records) {
    if (each.encoding === facts.encoding) continue; // otherwise another model was here before: encode it anew
    const pixels = await readPixels(each.png, facts);
    Object.assign(each, { points: (await run(pixels, facts)).points, encoding: facts.encoding });
    await putRecord(each);
  }
  together = null;
}

const joined = () => (together ??= classesWith(facts, records));

// Turns what a file or the network raises into a refusal with one line of text.
async function refusing(work) {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Refusal) throw error;
    if (error instanceof Unreadable) throw new Refusal(422, say(error.message, error.values));
    throw new Refusal(500, error.message);
  }
}

export async function summary() {
  await load();
  const { name, encoder, size, counts, trust } = facts;
  const images = counts.reduce((sum, each) => sum + each, 0) + records.length;
  const classes = joined().length;
  return { name, encoder, size, classes, images, trust, suspects: [], copies: [], limits: { files: 16 }, added: records.length };
}

export async function classes() {
  await load();
  const own = new Set(facts.classes);
  return joined().map(({ name, count }) => {
    const ids = records.filter(({ label }) => label === name).map(({ id }) => id);
    return { name, images: count, ids, alike: [], fixed: own.has(name), added: ids.length };
  });
}

export async function imagesOf(name) {
  return records.filter(({ label }) => label === name).map(({ id, item }) => ({ id, item }));
}

const record = (id) => records.find((each) => each.id === id);

export async function similarTo(id) {
  const { points } = record(id);
  const others = records.filter((each) => each.id !== id);
  const near = others.map(({ id, item, label, points: other }) => ({ id, item, label, similarity: cosine(points, other) }));
  return near.sort((a, b) => b.similarity - a.similarity).slice(0, 6);
}

// The answer to a file, and how long it took in milliseconds.
export const predict = (file) =>
  refusing(async () => {
    const start = performance.now();
    const pixels = await readPixels(file, facts);
    const outputs = await run(pixels, facts);
    return { ...answer(facts, joined(), outputs), milliseconds: performance.now() - start };
  });

// The name of a class as metarep add will have it; see metarep/data/class_names.py.
function cleanName(given) {
  const name = given.normalize("NFC").replace(/\p{Zs}/gu, " ").trim();
  const joinless = name.replace(/[\u200c\u200d]/g, "");
  if (!joinless || name.length > LONGEST || UNSEEN.test(joinless)) throw new Refusal(422, say("web.name", { most: LONGEST }));
  return name;
}

export async function teach(given, files) {
  const label = cleanName(given);
  const [ids, repeats] = [[], []];
  for (const file of files) {
    await refusing(async () => {
      const pixels = await readPixels(file, facts);
      const { points } = await run(pixels, facts);
      const same = records.find((each) => each.label === label && cosine(each.points, points) > SAME);
      if (same) return repeats.push({ item: file.name, same_as: same.item, label });
      const png = await toPng(pixels, facts);
      const one = { label, item: file.name || "camera.jpg", png, points: Float32Array.from(points), encoding: facts.encoding };
      ids.push((one.id = await putRecord(one)));
      return records.push(one);
    });
  }
  together = null;
  return { label, ids, repeats };
}

// Changes records; resolves to the number with which the change is undone.
async function change(before, after) {
  for (const each of before) if (!after.some(({ id }) => id === each.id)) await dropRecord(each.id);
  for (const each of after) await putRecord(each);
  undos.push(() => change(after, before));
  return undos.length - 1;
}

export async function rename(name, to) {
  const label = cleanName(to);
  const before = records.filter((each) => each.label === name);
  return change(before, before.map((each) => ({ ...each, label })));
}

export const removeClass = (name) => change(records.filter(({ label }) => label === name), []);
export const removeImage = (id) => change([record(id)], []);
export const move = async (id, to) => change([record(id)], [{ ...record(id), label: cleanName(to) }]);
export const undo = (number) => undos[number]();

const pictures = new Map();

// The address of a picture that was added.
export async function picture(id) {
  if (!pictures.has(id)) pictures.set(id, URL.createObjectURL(record(id).png));
  return pictures.get(id);
}

const quoted = (text) => `"${text.replaceAll('"', '""')}"`;

// What was added, as metarep add reads it: each image as the encoder saw it, and a list of their classes.
export async function download() {
  const files = await Promise.all(
    records.map(async ({ id, png }) => [`images/${id}.png`, new Uint8Array(await png.arrayBuffer())]),
  );
  const lines = records.map(({ id, label, item }) => [`images/${id}.png`, label, item].map(quoted).join(","));
  const list = new TextEncoder().encode(["path,label,file", ...lines, ""].join("\r\n"));
  return zip([["labels.csv", list], ...files]);
}
