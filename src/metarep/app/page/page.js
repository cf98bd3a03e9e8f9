// The start of the page of a model of one class an image: which parts it has, and which are drawn again on a change.

import { drawAsk, setUpAsk } from "./ask.js";
import { setUpCamera } from "./camera.js";
import { drawClasses, setUpClasses } from "./classes.js";
import { setUpDialogs } from "./dialogs.js";
import { setUpFolds } from "./fold.js";
import { drawFrame, start } from "./frame.js";
import { setUpImage } from "./image.js";
import { drawMap, setUpMap } from "./map.js";
import { watch } from "./model.js";
import { find } from "./parts.js";
import { drawQueue, setUpQueue } from "./queue.js";
import { drawTrust } from "./trust.js";
import { say } from "./words.js";

function drawHead({ summary }) {
  const { name, classes, images } = summary;
  drawFrame(name, { classes: say("classes.n", { n: classes }), images: say("images.n", { n: images }) }, summary);
  find("welcome").hidden = classes >= 2;
  find("download").hidden = images === 0;
  find("export").hidden = classes < 2;
}

for (const draw of [drawHead, drawClasses, drawAsk, drawQueue, drawTrust, drawMap]) watch(draw);
const parts = [setUpAsk, setUpCamera, setUpClasses, setUpDialogs, setUpFolds, setUpImage, setUpMap, setUpQueue];
for (const setUp of parts) setUp();
start();
