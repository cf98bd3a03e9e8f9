// The map: one point per image, similar images near each other. It is requested when it is scrolled into view, because
// the server may need some seconds to compute it.

import { openImage } from "./image.js";
import { model } from "./model.js";
import { attempt, find, make, picture } from "./parts.js";
import * as server from "./server.js";
import { say } from "./words.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const SIDE = 106; // of the drawing, in its own units; the points lie between 0 and 100
const GOLDEN = 137.508; // degrees between the hues of two classes that follow each other: they are never similar
const SHADES = [0, 14, -12]; // percent of lightness, in turn, because hues alone cannot tell a hundred classes apart
const LETTER = 11; // pixels: the height of a class name
const FEWEST = 3; // images
let map = null;
let stale = true;
let loading = false;
let visible = false;

export function drawMap({ summary }) {
  stale = true;
  find("map-section").hidden = summary.images < FEWEST;
  const counts = { images: say("images.n", { n: summary.images }), classes: say("classes.n", { n: summary.classes }) };
  find("map").setAttribute("aria-label", say("map.label", counts));
  if (map) draw(); // the old map, until the new one arrives
  load();
}

const load = attempt(async () => {
  if (!stale || !visible || loading || find("map-section").hidden) return;
  [stale, loading] = [false, true];
  find("map-note").textContent = say("map.loading");
  try {
    map = await server.map();
  } finally {
    loading = false;
  }
  draw();
  load(); // the model may have changed since the request
});

function draw() {
  const { classes } = model;
  find("map-note").textContent = say("map.note", { share: Math.round(100 * map.share) });
  const colours = new Map(classes.map(({ name }, index) => [name, colour(index)]));
  const dots = map.dots.filter(({ label }) => colours.has(label));
  const radius = Math.min(1.9, Math.max(0.9, 60 * typicalDistance(dots)));
  find("map").replaceChildren(...dots.map((dot) => point(dot, colours.get(dot.label), radius)), ...classNames(dots, radius));
  find("legend").replaceChildren(...classes.map(({ name }) => legendEntry(name, colours.get(name))));
  highlight(null);
}

const colour = (index) => ({ hue: (215 + index * GOLDEN) % 360, shade: SHADES[index % SHADES.length] });

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

// The median distance from a point to its nearest neighbour, over the first few hundred points.
function typicalDistance(dots) {
  const some = dots.slice(0, 300);
  const nearest = some.map((dot) => Math.min(...some.map((other) => (other === dot ? 1 : distance(dot, other)))));
  return nearest.sort((a, b) => a - b)[nearest.length >> 1] ?? 1;
}

function svgElement(tag, attributes) {
  const element = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function paint(element, { hue, shade }) {
  element.style.setProperty("--hue", hue);
  element.style.setProperty("--shade", `${shade}%`);
  return element;
}

function point({ id, x, y, label }, colour, radius) {
  const circle = paint(svgElement("circle", { cx: 100 * x, cy: 100 * (1 - y), r: radius }), colour);
  circle.dataset.label = label;
  circle.addEventListener("click", () => openImage(id));
  circle.addEventListener("pointerenter", () => {
    highlight(label);
    showTip(circle, id, label);
  });
  circle.addEventListener("pointerleave", () => {
    highlight(null);
    find("map-tip").hidden = true;
  });
  return circle;
}

// The names of classes, each above the point that is nearest to its middle, as many as do not overlap.
function classNames(dots, radius) {
  const unit = LETTER / (find("map").clientWidth / SIDE || 5); // the height of a letter, in units of the drawing
  const boxes = [];
  const texts = [];
  for (const [label, own] of [...byClass(dots)].sort((a, b) => b[1].length - a[1].length)) {
    const dot = middle(own);
    const width = unit * [...label].reduce((sum, letter) => sum + (letter > "\u2e7f" ? 1.05 : 0.58), 0);
    const x = Math.min(Math.max(100 * dot.x, width / 2 - 2), 102 - width / 2);
    const y = Math.max(100 * (1 - dot.y) - radius - 0.3 * unit, unit);
    const box = { left: x - width / 2, right: x + width / 2, top: y - unit, bottom: y + 0.2 * unit };
    if (width > 60 || boxes.some((other) => overlap(box, other))) continue;
    boxes.push(box);
    const text = svgElement("text", { x, y, "font-size": unit });
    text.textContent = label;
    text.dataset.label = label;
    texts.push(text);
  }
  return texts;
}

function byClass(dots) {
  const groups = new Map();
  for (const dot of dots) {
    if (!groups.has(dot.label)) groups.set(dot.label, []);
    groups.get(dot.label).push(dot);
  }
  return groups;
}

// The dot that is nearest to the mean of all.
function middle(dots) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const centre = { x: mean(dots.map(({ x }) => x)), y: mean(dots.map(({ y }) => y)) };
  return dots.reduce((best, dot) => (distance(dot, centre) < distance(best, centre) ? dot : best));
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Makes the points of one class stand out; null ends it.
function highlight(name) {
  find("map").classList.toggle("dim", name !== null);
  for (const element of find("map").children) element.classList.toggle("lit", element.dataset.label === name);
}

function showTip(circle, id, label) {
  const dot = circle.getBoundingClientRect();
  const sheet = find("map").getBoundingClientRect();
  const tip = find("map-tip");
  tip.replaceChildren(picture(id, ""), make("span", {}, label));
  tip.hidden = false;
  const left = dot.x + dot.width / 2 - sheet.x;
  tip.style.left = `${Math.min(Math.max(left, tip.offsetWidth / 2), sheet.width - tip.offsetWidth / 2)}px`;
  const above = dot.y - sheet.y - tip.offsetHeight - 6;
  tip.style.top = `${above > 0 ? above : dot.bottom - sheet.y + 6}px`;
}

function legendEntry(name, colour) {
  const [on, off] = [() => highlight(name), () => highlight(null)];
  const events = { onmouseenter: on, onmouseleave: off, onfocus: on, onblur: off };
  return make("li", {}, paint(make("button", { class: "quiet", ...events }, make("i", { "aria-hidden": "true" }), name), colour));
}

export function setUpMap() {
  const seen = new IntersectionObserver(
    ([{ isIntersecting }]) => {
      visible = isIntersecting;
      load();
    },
    { rootMargin: "200px" },
  );
  seen.observe(find("map"));
  let width = 0;
  const resized = new ResizeObserver(([{ contentRect }]) => {
    if (map && Math.abs(contentRect.width - width) > 20) draw(); // so that letters keep their size
    width = contentRect.width;
  });
  resized.observe(find("map"));
}
