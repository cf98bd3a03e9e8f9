// Questions: a photograph is sent, its answer is shown, and the user can correct it.

import { openCamera } from "./camera.js";
import { nearItem } from "./image.js";
import { model, teach } from "./model.js";
import { attempt, chooseFiles, droppable, find, hideNotice, make } from "./parts.js";
import * as server from "./server.js";
import { currentLanguage, listNames, percent, say } from "./words.js";

const BARS = 4; // classes whose probability is drawn
const KEPT = 12; // earlier questions that can be shown again
let questions = []; // {file, address, answer}, the latest first
let current = null;
let drawnLanguage = "";

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
    questions = [question, ...questions].slice(0, KEPT);
    drawQuestions();
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
  find("answer").replaceChildren(...verdict(question.answer), correction(question));
  for (const item of find("questions").children) item.classList.toggle("now", item.question === question);
}

function verdict({ label, probability, known, label_set: set, probabilities, neighbours }) {
  const list = make("ul", { class: "near" }, ...neighbours.map(nearItem));
  const near = neighbours.length ? [make("h3", {}, say("near")), list] : [];
  if (!known) {
    return [make("p", { class: "verdict none" }, say("unknown")), make("p", {}, say("unknown.why", { label })), ...near];
  }
  const others = set.filter((name) => name !== label);
  const narrowed = model.summary.trust.likely > 0; // without a threshold, the label set has all classes
  const also = narrowed && others.length > 0 ? [make("p", {}, say("also", { names: listNames(others.slice(0, 4)) }))] : [];
  return [
    make("p", { class: "kicker" }, say("looks")),
    make("p", { class: "verdict" }, label, " ", make("small", {}, percent(probability))),
    ...also,
    make("ul", { class: "bars", "aria-label": say("bars") }, ...bars(probabilities)),
    ...near,
  ];
}

// A bar for each of the most probable classes, and one for the rest together.
function bars(probabilities) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const drawn = rows.slice(0, BARS).map(([name, value]) => bar(name, value));
  const rest = rows.slice(BARS);
  if (!rest.length) return drawn;
  const sum = rest.reduce((total, [, value]) => total + value, 0);
  return [...drawn, bar(say("others", { n: rest.length }), sum, "rest")];
}

function bar(name, value, kind = "") {
  const line = make("i", { "aria-hidden": "true" });
  line.style.setProperty("--share", value);
  return make("li", { class: kind }, make("span", {}, name), line, make("span", { class: "number" }, percent(value)));
}

// The form below an answer: confirm it, or name the right class.
function correction(question) {
  const { label, known } = question.answer;
  const learn = attempt(async (name) => {
    const ids = await teach(name, [question.file]);
    if (!ids.length) return;
    await answer(question);
    drawQuestions();
  });
  const input = make("input", { id: "really", list: "names", maxlength: 80, autocomplete: "off", required: true });
  const yes = make("button", { id: "yes", type: "button", onclick: () => learn(label) }, say("yes", { label }));
  const form = make(
    "form",
    { class: "correction" },
    ...(known ? [make("p", {}, say("right")), yes] : []),
    make(
      "div",
      { class: "row" },
      make("label", { for: "really" }, say(known ? "really" : "really.unknown")),
      input,
      make("button", { class: "strong" }, say("learn")),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    learn(input.value.trim());
  });
  return form;
}

function drawQuestions() {
  find("questions").replaceChildren(...(questions.length > 1 ? questions.map(questionItem) : []));
}

function questionItem(question) {
  const { label, known } = question.answer;
  const text = known ? label : say("unknown");
  const image = make("img", { src: question.address, alt: "" });
  const name = `${question.file.name}: ${text}`;
  const button = make("button", { class: "thumb", "aria-label": name, onclick: () => show(question) }, image);
  const item = make("li", { class: question === current ? "now" : "" }, button, make("span", { class: "label" }, text));
  item.question = question;
  return item;
}

// The answer is drawn again only in another language, because a screen reader reads it out each time.
export function drawAsk({ summary }) {
  find("ask").hidden = summary.classes < 2;
  if (drawnLanguage !== currentLanguage()) show(current);
  drawnLanguage = currentLanguage();
  drawQuestions();
}

export function setUpAsk() {
  find("query-file").addEventListener("click", () => chooseFiles(ask));
  const live = (file) => server.predict(file, 0);
  find("query-camera").addEventListener("click", () => openCamera(say("ask"), ask, { live }));
  droppable(find("query"), (files, folders) => ask([...files, ...folders.flatMap(([, inside]) => inside)]));
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !find("ask").hidden) ask(files);
  });
}
