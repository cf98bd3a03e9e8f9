// The start of the page: its head, its language, and which parts are drawn again when something is added.

import { drawAsk, setUpAsk } from "./ask.js";
import { setUpCamera } from "./camera.js";
import { drawClasses, setUpClasses } from "./classes.js";
import { setUpDialogs } from "./dialogs.js";
import { setUpFolds } from "./fold.js";
import { setUpImage } from "./image.js";
import { model, redraw, refresh, watch } from "./model.js";
import { modelFacts, run } from "./network.js";
import { attempt, find, hideNotice, make, notify, undoLast } from "./parts.js";
import * as server from "./server.js";
import { drawTrust } from "./trust.js";
import { say, switchLanguage, translate } from "./words.js";

let state = "web.loading"; // of the graph, and of the copy that the browser keeps

function drawHead({ summary }) {
  const { name, classes, images, encoder, size, added } = summary;
  document.title = name;
  find("name").textContent = name;
  const counts = { classes: say("classes.n", { n: classes }), images: say("images.n", { n: images }) };
  find("facts").textContent = say("facts", { ...counts, encoder, height: size[0], width: size[1] });
  find("download").hidden = added === 0;
  drawState();
}

function drawState() {
  find("state").textContent = say(state);
  find("kept").textContent = say(server.kept ? "web.classes" : "web.memory");
}

const download = attempt(async () => {
  const file = `${model.summary.name}-added.zip`;
  const link = make("a", { href: URL.createObjectURL(await server.download()), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  notify(say("web.saved", { file }));
});

// Keeps a copy of the page in the browser, so that it opens without its server; browsers allow it on https and localhost.
async function keepCopy() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.register("./worker.js");
  await navigator.serviceWorker.ready;
  state = "web.offline";
  drawState();
}

async function start() {
  await attempt(refresh)();
  try {
    const facts = await modelFacts();
    await run(new Uint8Array(facts.channels * facts.size[0] * facts.size[1]), facts); // the first image takes longest
  } catch (error) {
    state = "web.failed";
    drawState();
    return notify(say("error.why", { what: say("web.failed"), why: error.message }), { bad: true });
  }
  state = "web.ready";
  drawState();
  document.body.dataset.ready = "yes";
  return keepCopy().catch(() => {}); // without a copy the page works as well
}

find("elsewhere").hidden = true;
for (const draw of [drawHead, drawClasses, drawAsk, drawTrust]) watch(draw);
for (const setUp of [setUpAsk, setUpCamera, setUpClasses, setUpDialogs, setUpFolds, setUpImage]) setUp();
find("language").addEventListener("click", () => {
  switchLanguage();
  translate();
  if (model.summary) redraw();
});
find("download").addEventListener("click", download);
find("notice-close").addEventListener("click", hideNotice);
find("notice-undo").addEventListener("click", undoLast);
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.preventDefault()); // a file dropped elsewhere must not replace the page
}
addEventListener("focus", () => model.summary && refresh().catch(() => {})); // another window may have added something
translate();
start();
