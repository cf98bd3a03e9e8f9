// The start of the page: its head, its language, its token, and which parts are drawn again when the model changes.

import { drawAsk, setUpAsk } from "./ask.js";
import { setUpCamera } from "./camera.js";
import { drawClasses, setUpClasses } from "./classes.js";
import { setUpDialogs } from "./dialogs.js";
import { setUpFolds } from "./fold.js";
import { setUpImage } from "./image.js";
import { drawMap, setUpMap } from "./map.js";
import { model, redraw, refresh, watch } from "./model.js";
import { attempt, find, hideNotice, make, notify, undoLast } from "./parts.js";
import { drawQueue, setUpQueue } from "./queue.js";
import * as server from "./server.js";
import { drawTrust } from "./trust.js";
import { say, switchLanguage, translate } from "./words.js";

function drawHead({ summary }) {
  const { name, classes, images, encoder, size } = summary;
  document.title = `${name} · metarep`;
  find("name").textContent = name;
  const counts = { classes: say("classes.n", { n: classes }), images: say("images.n", { n: images }) };
  find("facts").textContent = say("facts", { ...counts, encoder, height: size[0], width: size[1] });
  find("welcome").hidden = classes >= 2;
  find("download").hidden = images === 0;
  find("export").hidden = classes < 2;
}

function save(content, name) {
  const link = make("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const download = attempt(async () => save(await server.download(), `${model.summary.name}.zip`));

const exportGraph = attempt(async () => {
  const file = `${model.summary.name}.onnx`;
  find("export").disabled = true;
  notify(say("exporting"));
  try {
    save(await server.onnx(), file);
    notify(say("exported", { file }));
  } finally {
    find("export").disabled = false;
  }
});

let tokenRequest = null; // many requests may need the token at the same time, and one dialog serves them all

function askForToken(wrong) {
  tokenRequest ??= new Promise((resolve) => {
    find("token-wrong").textContent = wrong ? say("token.wrong") : "";
    find("token-input").value = "";
    if (!find("token-dialog").open) find("token-dialog").showModal();
    find("token-form").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        sessionStorage.setItem("token", find("token-input").value.trim());
        find("token-dialog").close();
        tokenRequest = null;
        resolve();
      },
      { once: true },
    );
  });
  return tokenRequest;
}

server.onToken(askForToken);
for (const draw of [drawHead, drawClasses, drawAsk, drawQueue, drawTrust, drawMap]) watch(draw);
const parts = [setUpAsk, setUpCamera, setUpClasses, setUpDialogs, setUpFolds, setUpImage, setUpMap, setUpQueue];
for (const setUp of parts) setUp();
find("language").addEventListener("click", () => {
  switchLanguage();
  translate();
  if (model.summary) redraw();
});
find("download").addEventListener("click", download);
find("export").addEventListener("click", exportGraph);
find("notice-close").addEventListener("click", hideNotice);
find("notice-undo").addEventListener("click", undoLast);
find("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.preventDefault()); // a file dropped elsewhere must not replace the page
}
addEventListener("focus", () => model.summary && refresh().catch(() => {})); // other people may have changed the model
translate();
attempt(refresh)();
