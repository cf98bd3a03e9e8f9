// The answer to a question: the class of a photograph, and the form in which the user can correct it.

import { nearItem } from "./image.js";
import { model, teach } from "./model.js";
import { attempt, bar, find, make } from "./parts.js";
import { askAgain, drawQuestions, setUpQuestions } from "./questions.js";
import * as server from "./server.js";
import { listNames, percent, say } from "./words.js";

const BARS = 4; // classes whose probability is drawn

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
    make("p", { class: "verdict" }, label, ...(calibrated() ? [" ", make("small", {}, percent(probability))] : [])),
    ...also,
    make("ul", { class: "bars", "aria-label": say("bars") }, ...bars(probabilities)),
    ...near,
  ];
}

// Whether probabilities are set by images of known class. Otherwise none is written, because none is known.
const calibrated = () => model.summary.trust.calibration !== "";

// A bar for each of the most probable classes, and one for the rest together.
function bars(probabilities) {
  const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const drawn = rows.slice(0, BARS).map(([name, value]) => bar(name, value));
  const rest = rows.slice(BARS);
  const sum = rest.reduce((total, [, value]) => total + value, 0);
  if (rest.length) drawn.push(bar(say("others", { n: rest.length }), sum, "rest"));
  if (!calibrated()) for (const row of drawn) row.lastChild.textContent = "";
  return drawn;
}

// The form below an answer: confirm it, or name the right class.
function correction(question) {
  const { label, known } = question.answer;
  const learn = attempt(async (name) => {
    const ids = await teach(name, [question.file]);
    if (!ids.length) return;
    await askAgain(question);
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

const caption = ({ label, known }) => (known ? label : say("unknown"));

export function drawAsk({ summary }) {
  find("ask").hidden = summary.classes < 2;
  drawQuestions();
}

export function setUpAsk() {
  setUpQuestions({
    title: "ask",
    predict: server.predict,
    draw: (question) => [...verdict(question.answer), correction(question)],
    caption,
    live: async (file) => {
      const answer = await server.predict(file, 0);
      return { text: caption(answer), share: answer.known && calibrated() ? answer.probability : null };
    },
  });
}
