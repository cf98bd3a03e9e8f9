// The page of a model of several labels an image: which labels a photograph has, and what the model knows of each.

import { setUpCamera } from "./camera.js";
import { setUpFolds } from "./fold.js";
import { drawFrame, start } from "./frame.js";
import { model, readBy, watch } from "./model.js";
import { bar, find, make } from "./parts.js";
import { drawQuestions, setUpQuestions } from "./questions.js";
import * as server from "./server.js";
import { percent, say } from "./words.js";

const SHOWN = 8; // labels whose probability is drawn before the list is opened
const NAMED = 4; // labels that are named below the camera

const images = (n) => say("images.n", { n });

function drawHead({ summary }) {
  const { name, labels } = summary;
  drawFrame(name, { classes: say("labels.n", { n: labels.length }), images: images(summary.images) }, summary);
  find("download").hidden = find("export").hidden = false;
}

// The answer to a question: a chip for each label that the photograph has, and a bar for each label of the model.
function answerOf({ answer: { labels, probabilities } }) {
  const chips = labels.map(({ label, probability }) =>
    make("li", {}, label, ...(measured() ? [" ", make("small", {}, percent(probability))] : [])),
  );
  const said = [make("p", { class: "kicker" }, say("labels.said")), make("ul", { class: "chips said" }, ...chips)];
  return [...(labels.length ? said : nothing(probabilities)), ...everyLabel(probabilities, labels)];
}

const descending = (probabilities) => Object.entries(probabilities).sort((a, b) => b[1] - a[1]);

// Whether probabilities come from images that were left out. Otherwise none is written, because none is known.
const measured = () => model.summary.held_out !== null;

const threshold = (name) => model.summary.labels.find(({ label }) => label === name)?.threshold ?? 1;

function nothing(probabilities) {
  const [[label, value]] = descending(probabilities);
  const why = say("labels.none.why", { label, share: percent(value), from: percent(threshold(label)) });
  return [make("p", { class: "verdict" }, say("labels.none")), ...(measured() ? [make("p", {}, why)] : [])];
}

function everyLabel(probabilities, said) {
  const names = new Set(said.map(({ label }) => label));
  const rows = descending(probabilities).map(([name, value]) => {
    const row = bar(name, value, names.has(name) ? "said" : "");
    row.style.setProperty("--from", threshold(name));
    if (!measured()) row.lastChild.textContent = say("each.none");
    return row;
  });
  const list = (some) => make("ul", { class: "bars labels" }, ...some);
  const rest = rows.slice(SHOWN);
  const more = rest.length ? [make("details", {}, make("summary", {}, say("doubts.more", { n: rest.length })), list(rest))] : [];
  return [
    make("h3", {}, say("labels.all")),
    make("p", { class: "note" }, say("labels.mark")),
    list(rows.slice(0, SHOWN)),
    ...more,
  ];
}

// A few words for an answer: its first labels, and how many more there are.
function caption({ labels }, most = 1) {
  const names = labels.slice(0, most).map(({ label }) => label);
  if (labels.length > most) names.push(`+ ${labels.length - most}`);
  return names.join(", ") || say("labels.none");
}

function drawAsk() {
  find("ask").hidden = false;
  drawQuestions();
}

const figure = ({ percent: share, interval: [low, high] }) =>
  say("accuracy.interval", { accuracy: share.toFixed(1), low: low.toFixed(1), high: high.toFixed(1) });

function drawLabels({ summary }) {
  const { labels, held_out: found } = summary;
  find("labels").hidden = false;
  find("accuracy").textContent = found
    ? say("labels.trust", { precision: figure(found.mean_average_precision), micro: figure(found.micro_f1), images: images(found.images) })
    : say("labels.untested");
  const worst = (a, b) => (a.average_precision ?? 101) - (b.average_precision ?? 101) || a.label.localeCompare(b.label);
  find("each").replaceChildren(...[...labels].sort(worst).map(labelRow));
}

function labelRow({ label, images: n, threshold: from, average_precision: precision }) {
  const row = bar(label, (precision ?? 0) / 100);
  const tested = precision === null ? say("each.none") : `${precision.toFixed(1)} %`;
  row.lastChild.textContent = say("labels.row", { tested, images: images(n), from: percent(from) });
  return row;
}

readBy(async () => ({ summary: await server.summary() }));
for (const draw of [drawHead, drawAsk, drawLabels]) watch(draw);
setUpQuestions({
  title: "labels.ask",
  predict: server.predict,
  draw: answerOf,
  caption: (answer) => caption(answer),
  live: async (file) => {
    const answer = await server.predict(file);
    const [first, second] = answer.labels;
    return { text: caption(answer, NAMED), share: first ? (second || !measured() ? undefined : first.probability) : null };
  },
});
setUpCamera();
setUpFolds();
start();
