// Questions: a photograph is sent, its answer is drawn, and earlier ones can be shown again. What an answer is, and how
// it is drawn, is for the page to say.

import { openCamera } from "./camera.js";
import { attempt, chooseFiles, droppable, find, hideNotice, make } from "./parts.js";
import { currentLanguage, say } from "./words.js";

const KEPT = 12; // earlier questions that can be shown again
let questions = []; // {file, address, answer}, the latest first
let current = null;
let drawnLanguage = "";
let page = null;

const ask = attempt(async (files) => {
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

// Asks a question again, such as after the model has learned.
export async function askAgain(question) {
  await answer(question);
  drawQuestions();
}

async function answer(question) {
  find("answer").replaceChildren(make("p", { class: "hint" }, say("asking")));
  question.answer = await page.predict(question.file);
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
  find("answer").replaceChildren(...page.draw(question));
  for (const item of find("questions").children) item.classList.toggle("now", item.question === question);
}

// The answer is drawn again only in another language, because a screen reader reads it out each time.
export function drawQuestions() {
  if (drawnLanguage !== currentLanguage()) show(current);
  drawnLanguage = currentLanguage();
  find("questions").replaceChildren(...(questions.length > 1 ? questions.map(questionItem) : []));
}

function questionItem(question) {
  const text = page.caption(question.answer);
  const image = make("img", { src: question.address, alt: "" });
  const name = `${question.file.name}: ${text}`;
  const button = make("button", { class: "thumb", "aria-label": name, onclick: () => show(question) }, image);
  const item = make("li", { class: question === current ? "now" : "" }, button, make("span", { class: "label" }, text));
  item.question = question;
  return item;
}

// Sets the questions up. `title` is the key of the text that asks; predict(file) resolves to an answer, draw(question)
// returns the elements of its answer, and caption(answer) a few words; live(file) is as for openCamera().
export function setUpQuestions({ title, predict, draw, caption, live }) {
  page = { predict, draw, caption };
  find("query-file").addEventListener("click", () => chooseFiles(ask));
  find("query-camera").addEventListener("click", () => openCamera(say(title), ask, { live }));
  droppable(find("query"), (files, folders) => ask([...files, ...folders.flatMap(([, inside]) => inside)]));
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length && !find("ask").hidden) ask(files);
  });
}
