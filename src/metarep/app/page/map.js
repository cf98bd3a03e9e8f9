// The map: a dot an image, near if alike. It is asked for when it is looked at, for it takes the server a second or two.

import { openImage } from "/page/image.js";
import { model } from "/page/model.js";
import { attempt, find, make, picture } from "/page/parts.js";
import * as server from "/page/server.js";
import { say } from "/page/words.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const GOLDEN = 137.508; // degrees: neighbours on the list get unlike colours
const SHADES = [0, 14, -12]; // percent of lightness, in turn: hues alone do not tell a hundred classes apart
const LETTER = 11; // pixels
const FEWEST = 3; // images
let map = null;
let stale = true;
let coming = false;
let seen = false;

export function drawMap({ summary }) {
  stale = true;
  find("places").hidden = summary.images < FEWEST;
  const counted = { images: say("images.n", { n: summary.images }), classes: say("classes.n", { n: summary.classes }) };
  find("map").setAttribute("aria-label", say("map.label", counted));
  if (map) draw(); // as it was, in the language and the colours of now
  look();
}

const look = attempt(async () => {
  if (!stale || !seen || coming || find("places").hidden) return;
  [stale, coming] = [false, true];
  find("map-note").textContent = say("map.coming");
  try {
    map = await server.map();
  } finally {
    coming = false;
  }
  draw();
  look(); // it may have changed meanwhile
});

function draw() {
  const { classes } = model;
  find("map-note").textContent = say("map.note", { share: Math.round(100 * map.share) });
  const colours = new Map(classes.map(({ name }, place) => [name, [(215 + place * GOLDEN) % 360, SHADES[place % SHADES.length]]]));
  const dots = map.dots.filter(({ label }) => colours.has(label));
  const radius = Math.min(1.9, Math.max(0.9, 60 * nearest(dots)));
  find("map").replaceChildren(...dots.map((dot) => mark(dot, colours.get(dot.label), radius)), ...names(dots, radius));
  find("legend").replaceChildren(...classes.map(({ name }) => entry(name, colours.get(name))));
  light(null);
}

// How far the nearest other dot usually is; of the first few hundred, which is enough to choose a size by.
function nearest(dots) {
  const some = dots.slice(0, 300);
  const apart = some.map((one) => Math.min(...some.map((other) => (other === one ? 1 : Math.hypot(one.x - other.x, one.y - other.y)))));
  return apart.sort((a, b) => a - b)[apart.length >> 1] ?? 1;
}

function element(tag, attributes) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function paint(made, [hue, shade]) {
  made.style.setProperty("--hue", hue);
  made.style.setProperty("--shade", `${shade}%`);
  return made;
}

function mark({ id, x, y, label }, colour, radius) {
  const made = paint(element("circle", { cx: 100 * x, cy: 100 * (1 - y), r: radius }), colour);
  made.dataset.label = label;
  made.addEventListener("click", () => openImage(id));
  made.addEventListener("pointerenter", () => (light(label), tip(made, id, label)));
  made.addEventListener("pointerleave", () => (light(null), (find("map-tip").hidden = true)));
  return made;
}

// Names of classes beside a dot in their middle, as many as have room.
function names(dots, radius) {
  const unit = LETTER / (find("map").clientWidth / 106 || 5); // of the drawing, a letter's height
  const groups = Map.groupBy ? Map.groupBy(dots, ({ label }) => label) : grouped(dots);
  const taken = [];
  const made = [];
  for (const [label, own] of [...groups].sort((a, b) => b[1].length - a[1].length)) {
    const middle = { x: mean(own.map(({ x }) => x)), y: mean(own.map(({ y }) => y)) };
    const far = ({ x, y }) => (x - middle.x) ** 2 + (y - middle.y) ** 2;
    const at = own.reduce((best, each) => (far(each) < far(best) ? each : best));
    const wide = [...label].reduce((sum, letter) => sum + (letter > "\u2e7f" ? 1.05 : 0.58), 0) * unit;
    const [x, y] = [Math.min(Math.max(100 * at.x, wide / 2 - 2), 102 - wide / 2), Math.max(100 * (1 - at.y) - radius - 0.3 * unit, unit)];
    const box = [x - wide / 2, y - unit, x + wide / 2, y + 0.2 * unit];
    if (wide > 60 || taken.some((each) => box[0] < each[2] && each[0] < box[2] && box[1] < each[3] && each[1] < box[3])) continue;
    taken.push(box);
    const text = element("text", { x, y, "font-size": unit });
    text.textContent = label;
    text.dataset.label = label;
    made.push(text);
  }
  return made;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function grouped(dots) {
  const groups = new Map();
  for (const dot of dots) groups.set(dot.label, [...(groups.get(dot.label) ?? []), dot]);
  return groups;
}

// Brings the dots of a class out, or of none.
function light(name) {
  find("map").classList.toggle("dim", name !== null);
  for (const each of find("map").children) each.classList.toggle("lit", each.dataset.label === name);
}

function tip(dot, id, label) {
  const [box, sheet, made] = [dot.getBoundingClientRect(), find("map").getBoundingClientRect(), find("map-tip")];
  made.replaceChildren(picture(id, ""), make("span", {}, label));
  made.hidden = false;
  const left = box.x + box.width / 2 - sheet.x;
  made.style.left = `${Math.min(Math.max(left, made.offsetWidth / 2), sheet.width - made.offsetWidth / 2)}px`;
  const above = box.y - sheet.y - made.offsetHeight - 6;
  made.style.top = `${above > 0 ? above : box.bottom - sheet.y + 6}px`;
}

function entry(name, colour) {
  const events = { onmouseenter: () => light(name), onmouseleave: () => light(null), onfocus: () => light(name), onblur: () => light(null) };
  return make("li", {}, paint(make("button", { class: "quiet", ...events }, make("i", { "aria-hidden": "true" }), name), colour));
}

export function setUpMap() {
  new IntersectionObserver(([{ isIntersecting }]) => ((seen = isIntersecting), look()), { rootMargin: "200px" }).observe(find("map"));
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (map && Math.abs(contentRect.width - width) > 20) draw(); // letters keep their size
    width = contentRect.width;
  }).observe(find("map"));
}
