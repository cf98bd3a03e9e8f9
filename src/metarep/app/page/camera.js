// The camera: live in a dialog where the browser allows it, else whatever the phone opens for a picture.

import { chooseFiles, find, notify } from "/page/parts.js";
import { say } from "/page/words.js";

let stream = null;
let give = null;
let taken = 0;
let several = false;

// then(files) is told each picture; with many, the camera stays open.
export async function openCamera(title, then, { many = false } = {}) {
  if (!navigator.mediaDevices) return chooseFiles(then, { capture: true }); // neither https nor this machine
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    return notify(say("camera.no", { why: error.message }), { bad: true });
  }
  [give, taken, several] = [then, 0, many];
  find("camera-title").textContent = say("camera.for", { label: title });
  find("camera-count").textContent = "";
  find("camera-video").srcObject = stream;
  find("camera-dialog").showModal();
  find("camera-take").focus();
}

async function take() {
  const video = find("camera-video");
  if (!video.videoWidth) return; // not a picture yet
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  taken += 1;
  find("camera-count").textContent = say("taken", { n: taken });
  give([new File([blob], `camera ${taken}.jpg`, { type: "image/jpeg" })]);
  if (!several) find("camera-dialog").close();
}

export function setUpCamera() {
  find("camera-take").addEventListener("click", take);
  find("camera-close").addEventListener("click", () => find("camera-dialog").close());
  find("camera-dialog").addEventListener("close", () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    find("camera-video").srcObject = stream = null;
  });
}
