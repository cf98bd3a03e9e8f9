// How far the model can be trusted: leave-one-out accuracy, also per class; near copies; images in a wrong class.

import { showClass } from "./classes.js";
import { openImage } from "./image.js";
import { move } from "./model.js";
import { attempt, find, make, thumbnail } from "./parts.js";
import { say } from "./words.js";

const DRAWN = 6; // suspects that are shown before the list is opened
const FEW = 20; // tested images, below which a share in percent would say too much
const GROUPS = 6; // groups of near copies that are shown
const IN_GROUP = 8; // images of a group that are shown
const accepted = new Set(); // suspects that the user has called right
const opened = new Set(); // lists that the user has opened; they are drawn again with every change

export function drawTrust({ summary }) {
  const { trust, suspects, copies, classes } = summary;
  find("trust").hidden = classes < 2;
  find("accuracy").textContent = accuracyText(trust, classes);
  find("unknowns").textContent = unknownsText(trust);
  find("per-class").replaceChildren(...perClass(trust.per_class ?? []));
  find("copies").replaceChildren(...nearCopies(copies ?? []));
  const left = suspects.filter(({ id }) => !accepted.has(id));
  find("doubts").replaceChildren(...suspectList(left, trust, () => drawTrust({ summary })));
}

const isOwn = (trust) => trust.source === "leave-one-out"; // measured on these images, and not taken from elsewhere

export function accuracyText(trust, classes) {
  const { accuracy, interval, tested, source } = trust;
  if (accuracy === null) return say("accuracy.none");
  if (!isOwn(trust)) {
    const [low, high] = interval.map(Math.round);
    return say("accuracy.expected", { low, high, source });
  }
  const guess = 100 / classes;
  const warning = interval[0] <= guess ? ` ${say("accuracy.guess", { guess: Math.round(guess) })}` : "";
  if (tested < FEW) return say("accuracy.few", { right: Math.round((accuracy * tested) / 100), tested }) + warning;
  const [low, high] = interval.map((bound) => bound.toFixed(1));
  const share = say("accuracy.interval", { accuracy: accuracy.toFixed(1), low, high });
  const text = say("accuracy", { accuracy: share, tested: say("images.n", { n: tested }) });
  const points = (trust.lowered_by ?? 0).toFixed(1);
  return (points === "0.0" ? text : `${text} ${say("accuracy.lowered", { points })}`) + warning;
}

function unknownsText({ known, false_alarms: share }) {
  if (known !== null) return say("known", { share: Math.round(100 * share) });
  return say("known.none", { n: Math.max(10, Math.ceil(1 / share) - 1) });
}

function disclosure(list, text, ...inside) {
  const ontoggle = ({ target }) => (target.open ? opened.add(list) : opened.delete(list));
  return make("details", { open: opened.has(list), ontoggle }, make("summary", {}, text), ...inside);
}

function suspectList(suspects, trust, redraw) {
  if (!suspects.length) return isOwn(trust) && trust.tested ? [make("p", { class: "note" }, say("doubts.none"))] : [];
  const rows = suspects.map((suspect) => suspectRow(suspect, redraw));
  const more = rows.slice(DRAWN);
  const rest = more.length ? [disclosure("doubts", say("doubts.more", { n: more.length }), ...more)] : [];
  return [make("h3", {}, say("doubts")), ...rows.slice(0, DRAWN), ...rest];
}

function suspectRow({ id, item, label, likelier, probability }, redraw) {
  const accept = () => {
    accepted.add(id);
    redraw();
  };
  const percent = make("span", { class: "note" }, `${Math.round(100 * probability)} %`);
  return make(
    "div",
    { class: "doubt" },
    thumbnail(id, item, () => openImage(id)),
    make("p", {}, say("doubt", { item, label, likelier }), " ", percent),
    make(
      "div",
      { class: "row" },
      make("button", { onclick: () => attempt(move)(id, likelier) }, say("doubt.move", { label: likelier })),
      make("button", { class: "quiet", onclick: accept }, say("doubt.keep")),
    ),
  );
}

// The classes that need more images, and a list of all classes that can be opened; the least accurate first.
function perClass(classes) {
  if (!classes.length) return [];
  const worst = (a, b) => (a.accuracy ?? 101) - (b.accuracy ?? 101) || a.label.localeCompare(b.label);
  const rows = [...classes].sort(worst);
  const list = make("ul", { class: "bars each" }, ...rows.map(classRow));
  return [...chips(rows.filter(({ needs }) => needs)), disclosure("each", say("each"), list)];
}

function chips(needy) {
  if (!needy.length) return [];
  const items = needy.map((each) => make("li", {}, classLink(each)));
  return [make("h3", {}, say("needs.title")), make("ul", { class: "chips" }, ...items)];
}

const classLink = ({ label }) => make("button", { class: "quiet", onclick: () => showClass(label) }, label);

function classRow(each) {
  const { accuracy, interval, tested } = each;
  const line = make("i", { "aria-hidden": "true" });
  if (accuracy === null) return make("li", {}, classLink(each), line, make("span", { class: "number" }, say("each.none")));
  line.style.setProperty("--share", accuracy / 100);
  const text = say("each.share", { right: Math.round(accuracy), tested: say("images.n", { n: tested }) });
  const [low, high] = (interval ?? []).map(Math.round);
  const title = interval ? say("each.interval", { low, high }) : "";
  return make("li", {}, classLink(each), line, make("span", { class: "number", title }, text));
}

function nearCopies(groups) {
  if (!groups.length) return [];
  const thumb = ({ id, item }) => thumbnail(id, item, () => openImage(id), { title: item });
  const drawn = groups.slice(0, GROUPS).map((group) => make("div", { class: "group" }, ...group.slice(0, IN_GROUP).map(thumb)));
  const rest = groups.length - GROUPS;
  return [
    make("h3", {}, say("copies")),
    make("p", { class: "note" }, say("copies.how", { n: groups.length })),
    make("div", { class: "groups" }, ...drawn),
    ...(rest > 0 ? [make("p", { class: "note" }, say("copies.more", { n: rest }))] : []),
  ];
}
