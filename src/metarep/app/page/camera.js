// The camera: live in a dialog where the browser allows it, otherwise the phone's own camera.

import { chooseFiles, find, make, notify, reason } from "./parts.js";
import * as server from "./server.js";
import { percent, say } from "./words.js";

const HOLD = 350; // milliseconds, after which a press counts as holding
const EVERY = 250; // milliseconds between pictures of a burst, and the least between live questions
const MOST = 40; // pictures in a burst
const LOOK = 480; // pixels: the longer side of a picture for a live question
const REST = 2000; // milliseconds of pause after a live question that failed

let stream = null;
let onPicture = null;
let taken = 0;
let several = false;
let burst = null; // pictures of the burst that is being taken

// Opens the camera. onFiles(files) gets each picture; with `many`, the camera stays open, and holding the button takes a
// burst. live(file) resolves to {text, share}: an answer and its probability, which is null if it is none of all. It is
// called a few times a second, and never before the last call has ended.
export async function openCamera(title, onFiles, { many = false, live = null } = {}) {
  if (!navigator.mediaDevices) return chooseFiles(onFiles, { capture: true }); // browsers allow it on https and localhost only
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    return notify(say("camera.no", { why: error.message }), { bad: true });
  }
  [onPicture, taken, several, burst] = [onFiles, 0, many, null];
  find("camera-title").textContent = say("camera.for", { label: title });
  find("camera-count").textContent = "";
  find("camera-hold").hidden = !many;
  find("camera-live").hidden = !live;
  find("camera-live").replaceChildren();
  find("camera-video").srcObject = stream;
  find("camera-dialog").showModal();
  find("camera-take").focus();
  if (live) answerLive(live, stream);
}

const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));

// Answers what the camera sees until this stream is closed.
async function answerLive(live, own) {
  while (stream === own) {
    const next = wait(EVERY);
    const file = document.hidden ? null : await frame(LOOK);
    if (file && stream === own) {
      try {
        const answer = await live(file);
        if (stream === own) showAnswer(answer);
      } catch (error) {
        if (!(error instanceof server.Refusal)) throw error;
        find("camera-live").textContent = say("live.no", { why: reason(error) });
        await wait(REST);
      }
    }
    await next;
  }
}

function showAnswer({ text, share }) {
  find("camera-live").classList.toggle("none", share === null);
  find("camera-live").replaceChildren(text, ...(share ? [" ", make("small", {}, percent(share))] : []));
}

// What the camera sees now, as a file; null until its first picture has arrived.
async function frame(longest = Infinity) {
  const video = find("camera-video");
  if (!video.videoWidth) return null;
  const scale = Math.min(1, longest / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(scale * video.videoWidth), Math.round(scale * video.videoHeight)];
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return blob && new File([blob], `camera ${taken + 1}.jpg`, { type: "image/jpeg" });
}

async function take() {
  const file = await frame();
  if (!file) return null;
  taken += 1;
  find("camera-count").textContent = say("taken", { n: taken });
  return file;
}

async function takeOne() {
  const file = await take();
  if (!file) return;
  onPicture([file]);
  if (!several) find("camera-dialog").close();
}

async function takeMany() {
  const own = (burst = []);
  while (burst === own && own.length < MOST) {
    const next = wait(EVERY);
    const file = await take();
    if (file) own.push(file);
    await next;
  }
  if (own.length) onPicture(own); // the button was released, the camera closed, or the burst is full
}

export function setUpCamera() {
  const button = find("camera-take");
  let press = 0; // the timer while the button is down
  let held = false; // whether a burst was taken: the click that ends it takes no further picture
  let key = false; // whether the key went down on this button: the key that opened the dialog is also released here
  const down = () => {
    held = false;
    if (!several) return;
    press = setTimeout(() => {
      held = true;
      takeMany();
    }, HOLD);
  };
  const up = () => {
    clearTimeout(press);
    burst = null;
  };
  button.addEventListener("pointerdown", down);
  for (const kind of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(kind, up);
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch would open the menu
  button.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault(); // a held Enter key would click again and again
    if (event.repeat) return;
    key = true;
    down();
  });
  button.addEventListener("keyup", (event) => {
    if (!key || (event.key !== " " && event.key !== "Enter")) return;
    event.preventDefault();
    up();
    if (!held) takeOne();
    key = held = false;
  });
  button.addEventListener("click", () => {
    if (!held) takeOne();
    held = false;
  });
  find("camera-close").addEventListener("click", () => find("camera-dialog").close());
  find("camera-dialog").addEventListener("close", () => {
    up();
    for (const track of stream?.getTracks() ?? []) track.stop();
    find("camera-video").srcObject = stream = null;
  });
}
