// The frame of a page: its head, its language, its token, its notices, and its downloads.

import { model, redraw, refresh } from "./model.js";
import { attempt, find, hideNotice, make, notify, undoLast } from "./parts.js";
import * as server from "./server.js";
import { say, switchLanguage, translate } from "./words.js";

// Draws the head of the page: the name of the model, and one line about it.
export function drawFrame(name, counts, { encoder, size }) {
  document.title = `${name} · metarep`;
  find("name").textContent = name;
  find("facts").textContent = say("facts", { ...counts, encoder, height: size[0], width: size[1] });
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

// Starts a page, whose parts are set up already.
export function start() {
  server.onToken(askForToken);
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
}
