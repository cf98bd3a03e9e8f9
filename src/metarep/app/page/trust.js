// How far to trust the model: accuracy by leaving images out, doubtful images, and the map of all.

import { openImage } from "/page/image.js";
import { move } from "/page/model.js";
import { attempt, find, make, picture } from "/page/parts.js";
import { say } from "/page/words.js";

const DRAWN = 12; // doubtful images
const FEW = 20; // images
const NAMESPACE = "http://www.w3.org/2000/svg";
const GOLDEN = 137.508; // degrees: neighbours on the list get unlike colours
const settled = new Set(); // doubtful images that somebody has looked at

export function drawTrust({ summary }) {
  const { trust, suspects, classes } = summary;
  find("trust").hidden = classes < 2;
  const own = trust.source === "leave-one-out";
  find("accuracy").textContent = accuracy(trust, own);
  const needed = Math.max(10, Math.ceil(1 / trust.false_alarms) - 1);
  find("unknowns").textContent =
    trust.known === null ? say("known.none", { n: needed }) : say("known", { share: Math.round(100 * trust.false_alarms) });
  const doubts = suspects.filter(({ id }) => !settled.has(id)).slice(0, DRAWN);
  const heading = doubts.length ? make("h3", {}, say("doubts")) : own && trust.tested ? make("p", { class: "note" }, say("doubts.none")) : "";
  find("doubts").replaceChildren(heading, ...doubts.map((each) => doubt(each, () => drawTrust({ summary }))));
}

function accuracy({ accuracy, interval, tested, source }, own) {
  if (accuracy === null) return say("accuracy.none");
  const right = Math.round((accuracy * tested) / 100);
  if (own && tested < FEW) return say("accuracy.few", { right, tested });
  const [low, high] = interval.map((bound) => bound.toFixed(1));
  const share = say("accuracy.interval", { accuracy: accuracy.toFixed(1), low, high });
  return own ? say("accuracy", { accuracy: share, tested: say("images.n", { n: tested }) }) : say("accuracy.expected", { accuracy: share, source });
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

export function drawMap({ summary, classes, map }) {
  find("places").hidden = map.dots.length < 3;
  find("map-note").textContent = say("map.note", { share: Math.round(100 * map.share) });
  const counted = { images: say("images.n", { n: summary.images }), classes: say("classes.n", { n: summary.classes }) };
  find("map").setAttribute("aria-label", say("map.label", counted));
  const hues = new Map(classes.map(({ name }, place) => [name, (215 + place * GOLDEN) % 360]));
  const radius = Math.max(0.7, 1.9 - map.dots.length / 400);
  find("map").replaceChildren(...map.dots.map((dot) => mark(dot, hues.get(dot.label), radius)));
  find("legend").replaceChildren(...classes.map(({ name }) => entry(name, hues.get(name))));
}

function mark({ id, x, y, label }, hue, radius) {
  const made = document.createElementNS(NAMESPACE, "circle");
  for (const [name, value] of Object.entries({ cx: 100 * x, cy: 100 * (1 - y), r: radius })) made.setAttribute(name, value);
  made.style.setProperty("--hue", hue);
  made.dataset.label = label;
  made.addEventListener("click", () => openImage(id));
  const title = document.createElementNS(NAMESPACE, "title");
  title.textContent = label;
  made.append(title);
  return made;
}

function entry(name, hue) {
  const light = (on) => {
    find("map").classList.toggle("dim", on);
    for (const dot of find("map").children) dot.classList.toggle("lit", on && dot.dataset.label === name);
  };
  const events = { onmouseenter: () => light(true), onmouseleave: () => light(false), onfocus: () => light(true), onblur: () => light(false) };
  const button = make("button", { class: "quiet", ...events }, make("i", { "aria-hidden": "true" }), name);
  button.style.setProperty("--hue", hue);
  return make("li", {}, button);
}
