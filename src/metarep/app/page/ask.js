// Asking: a photograph in, an answer out, and what is right where it was wrong.

import { openCamera } from "/page/camera.js";
import { nearItem } from "/page/image.js";
import { model, teach } from "/page/model.js";
import { attempt, chooseFiles, droppable, find, hideNotice, make } from "/page/parts.js";
import * as server from "/page/server.js";
import { list, percent, say, spoken } from "/page/words.js";

const BARS = 4; // classes whose probability is drawn
const KEPT = 12; // questions that can be looked at again
let asked = []; // {file, address, answer}
let current = null;
let drawnIn = "";

export const ask = attempt(async (files) => {
  hideNotice();
  for (const file of files) {
    const question = { file, address: URL.createObjectURL(file), answer: null };
    try {
      await answer(question);
    } catch (error) {
      URL.revokeObjectURL(question.address);
      show(current);
      throw error;
    }
    asked = [question, ...asked].slice(0, KEPT);
    drawAsked();
  }
});

async function answer(question) {
  find("answer").replaceChildren(make("p", { class: "hint" }, say("asking")));
  question.answer = await server.predict(question.file);
  show(question);
}

function show(question) {
  current = question;
  const image = find("query-image");
  image.hidden = !question;
  find("query-hint").hidden = Boolean(question);
  if (!question) return find("answer").replaceChildren(make("p", { class: "hint" }, say("ask.empty")));
  image.src = question.address;
  image.alt = question.file.name;
  find("answer").replaceChildren(...drawn(question.answer), correction(question));
  for (const each of find("asked").children) each.classList.toggle("now", each.question === question);
}

function drawn({ label, probability, known, label_set: set, probabilities, neighbours }) {
  const others = set.filter((name) => name !== label);
  const told = model.summary.trust.likely > 0 && known && others.length > 0; // without a threshold, all are in the set
  const head = known
    ? [make("p", { class: "kicker" }, say("looks")), make("p", { class: "verdict" }, label, " ", make("small", {}, percent(probability)))]
    : [make("p", { class: "verdict none" }, say("unknown")), make("p", {}, say("unknown.why", { label }))];
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const bars = rows.slice(0, BARS).map(([name, value]) => bar(name, value));
  const rest = rows.slice(BARS);
  if (rest.length) bars.push(bar(say("others", { n: rest.length }), rest.reduce((sum, [, value]) => sum + value, 0), "rest"));
  return [
    ...head,
    told ? make("p", {}, say("also", { names: list(others.slice(0, 4)) })) : "",
    known ? make("ul", { class: "bars", "aria-label": say("bars") }, ...bars) : "",
    make("h3", {}, say("near")),
    make("ul", { class: "near" }, ...neighbours.map(nearItem)),
  ];
}

function bar(name, value, kind = "") {
  const line = make("i", { "aria-hidden": "true" });
  line.style.setProperty("--share", value);
  return make("li", { class: kind }, make("span", {}, name), line, make("span", { class: "number" }, percent(value)));
}

function correction(question) {
  const { label, known } = question.answer;
  const learn = attempt(async (name) => {
    const ids = await teach(name, [question.file]);
    if (!ids.length) return;
    await answer(question);
    drawAsked();
  });
  const input = make("input", { id: "really", list: "names", maxlength: 80, autocomplete: "off", required: true });
  const yes = make("button", { id: "yes", type: "button", onclick: () => learn(label) }, say("yes", { label }));
  const form = make(
    "form",
    { class: "correction" },
    known ? make("p", {}, say("right")) : "",
    known ? yes : "",
    make("div", { class: "row" }, make("label", { for: "really" }, say(known ? "really" : "really.unknown")), input, make("button", { class: "strong" }, say("learn"))),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    learn(input.value.trim());
  });
  return form;
}

function drawAsked() {
  const item = (question) => {
    const { label, known } = question.answer;
    const text = known ? label : say("unknown");
    const image = make("img", { src: question.address, alt: "" });
    const made = make("li", { class: question === current ? "now" : "" }, make("button", { class: "thumb", "aria-label": `${question.file.name}: ${text}`, onclick: () => show(question) }, image), make("span", { class: "label" }, text));
    made.question = question;
    return made;
  };
  find("asked").replaceChildren(...(asked.length > 1 ? asked.map(item) : []));
}

// The answer is drawn anew only in another language: a screen reader would read it out each time.
export function drawAsk({ summary }) {
  find("ask").hidden = summary.classes < 2;
  if (drawnIn !== spoken()) show(current);
  drawnIn = spoken();
  drawAsked();
}

export function setUpAsk() {
  find("query-file").addEventListener("click", () => chooseFiles(ask));
  find("query-camera").addEventListener("click", () => openCamera(say("ask"), ask, { live: (file) => server.predict(file, 0) }));
  droppable(find("query"), (files, folders) => ask([...files, ...folders.flatMap(([, inside]) => inside)]));
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !find("ask").hidden) ask(files);
  });
}
