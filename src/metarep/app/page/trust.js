// How far to trust the model: accuracy by leaving images out, of all and of each class, near copies, doubtful images.

import { showClass } from "/page/classes.js";
import { openImage } from "/page/image.js";
import { move } from "/page/model.js";
import { attempt, find, make, picture } from "/page/parts.js";
import { say } from "/page/words.js";

const DRAWN = 6; // doubtful images, before the rest are opened
const FEW = 20; // images
const GROUPS = 6; // of near copies
const settled = new Set(); // doubtful images that somebody has looked at

export function drawTrust({ summary }) {
  const { trust, suspects, classes } = summary;
  find("trust").hidden = classes < 2;
  const own = trust.source === "leave-one-out";
  find("accuracy").textContent = accuracy(trust, own);
  const needed = Math.max(10, Math.ceil(1 / trust.false_alarms) - 1);
  find("unknowns").textContent =
    trust.known === null ? say("known.none", { n: needed }) : say("known", { share: Math.round(100 * trust.false_alarms) });
  find("per-class").replaceChildren(...perClass(trust.per_class ?? []));
  find("copies").replaceChildren(...nearCopies(summary.copies ?? []));
  const doubts = suspects.filter(({ id }) => !settled.has(id));
  const heading = doubts.length ? make("h3", {}, say("doubts")) : own && trust.tested ? make("p", { class: "note" }, say("doubts.none")) : "";
  const drawn = doubts.map((each) => doubt(each, () => drawTrust({ summary })));
  find("doubts").replaceChildren(heading, ...drawn.slice(0, DRAWN));
  if (drawn.length > DRAWN) find("doubts").append(opens("doubts", say("doubts.more", { n: drawn.length - DRAWN }), ...drawn.slice(DRAWN)));
}

const opened = new Set(); // lists: they are drawn anew with every change

function opens(list, text, ...inside) {
  const toggled = ({ target }) => (target.open ? opened.add(list) : opened.delete(list));
  return make("details", { open: opened.has(list), ontoggle: toggled }, make("summary", {}, text), ...inside);
}

function accuracy({ accuracy, interval, tested, source }, own) {
  if (accuracy === null) return say("accuracy.none");
  const right = Math.round((accuracy * tested) / 100);
  if (own && tested < FEW) return say("accuracy.few", { right, tested });
  const [low, high] = interval.map((bound) => bound.toFixed(1));
  const share = say("accuracy.interval", { accuracy: accuracy.toFixed(1), low, high });
  return own ? say("accuracy", { accuracy: share, tested: say("images.n", { n: tested }) }) : say("accuracy.expected", { low: Math.round(low), high: Math.round(high), source });
}

function doubt({ id, item, label, likelier, probability }, again) {
  const keep = () => (settled.add(id), again());
  return make(
    "div",
    { class: "doubt" },
    make("button", { class: "thumb", "aria-label": item, onclick: () => openImage(id) }, picture(id, "")),
    make("p", {}, say("doubt", { item, label, likelier }), " ", make("span", { class: "note" }, `${Math.round(100 * probability)} %`)),
    make(
      "div",
      { class: "row" },
      make("button", { onclick: () => attempt(move)(id, likelier) }, say("doubt.move", { label: likelier })),
      make("button", { class: "quiet", onclick: keep }, say("doubt.keep")),
    ),
  );
}

// The classes that need more images, and all of them in a list that opens.
function perClass(each) {
  if (!each.length) return [];
  const rows = [...each].sort((a, b) => (a.accuracy ?? 101) - (b.accuracy ?? 101) || a.label.localeCompare(b.label));
  const needs = rows.filter((own) => own.needs);
  const link = ({ label }) => make("button", { class: "quiet", onclick: () => showClass(label) }, label);
  const head = needs.length ? [make("h3", {}, say("needs.title")), make("ul", { class: "chips" }, ...needs.map((own) => make("li", {}, link(own))))] : [];
  const list = make("ul", { class: "bars each" }, ...rows.map((own) => row(own, link(own))));
  return [...head, opens("each", say("each"), list)];
}

function row({ accuracy, interval, tested }, link) {
  if (accuracy === null) return make("li", {}, link, make("i", { "aria-hidden": "true" }), make("span", { class: "number" }, say("each.none")));
  const line = make("i", { "aria-hidden": "true" });
  line.style.setProperty("--share", accuracy / 100);
  const text = say("each.one", { right: Math.round(accuracy), tested: say("images.n", { n: tested }) });
  const range = interval ? say("each.interval", { low: Math.round(interval[0]), high: Math.round(interval[1]) }) : "";
  return make("li", {}, link, line, make("span", { class: "number", title: range }, text));
}

function nearCopies(groups) {
  if (!groups.length) return [];
  const thumb = ({ id, item }) => make("button", { class: "thumb", "aria-label": item, title: item, onclick: () => openImage(id) }, picture(id, ""));
  const rest = groups.length - GROUPS;
  return [
    make("h3", {}, say("copies")),
    make("p", { class: "note" }, say("copies.how", { n: groups.length })),
    make("div", { class: "groups" }, ...groups.slice(0, GROUPS).map((group) => make("div", { class: "group" }, ...group.slice(0, 8).map(thumb)))),
    rest > 0 ? make("p", { class: "note" }, say("copies.more", { n: rest })) : "",
  ];
}
