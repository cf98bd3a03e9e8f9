// The end of the queue: what was learned of how many photographs, what was not, and how accurate the model is now.

import { model } from "./model.js";
import { make } from "./parts.js";
import { accuracyText } from "./trust.js";
import { say } from "./words.js";

const NEEDY = 8; // classes that are named as in need of more images

// The elements that say what became of the photographs. `labelled` holds {label} of each that was learned.
export function summaryOf({ photos, fresh }, labelled) {
  const n = labelled.length;
  const needy = (model.summary.trust.per_class ?? []).filter(({ needs }) => needs).map(({ label }) => label);
  return [
    make("p", { class: "verdict" }, n ? say("queue.sum", { n }) : say("queue.nothing")),
    make("ul", { class: "chips" }, ...counts(labelled).map((pair) => chip(pair, fresh))),
    make("p", { class: "note" }, rest(photos)),
    make("p", {}, model.summary.classes > 1 ? accuracyText(model.summary.trust, model.summary.classes) : ""),
    make("p", { class: "note" }, needy.length ? `${say("needs.title")}: ${needy.slice(0, NEEDY).join(", ")}` : ""),
  ];
}

function counts(labelled) {
  const found = new Map();
  for (const { label } of labelled) found.set(label, (found.get(label) ?? 0) + 1);
  return [...found].sort((a, b) => b[1] - a[1]);
}

function chip([label, n], fresh) {
  const added = fresh.has(label) ? ` · ${say("queue.fresh")}` : "";
  return make("li", {}, `${label} `, make("span", { class: "note number" }, `${n}${added}`));
}

// What became of the photographs that were not labelled.
function rest(photos) {
  const count = (wanted) => photos.filter(wanted).length;
  const parts = [
    ["queue.rest.skipped", count(({ state }) => state === "skipped")],
    ["queue.rest.copies", count(({ state }) => state === "copy")],
    ["queue.rest.open", count(({ state }) => state === "open")],
    ["queue.rest.bad", count(({ state }) => state === "bad")],
  ];
  return parts.filter(([, n]) => n).map(([key, n]) => say(key, { n })).join(" · ");
}
