// Requests to the server. Every failure becomes a Refusal: a status (0 if there was no response) and one line of text.

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let askForToken = () => Promise.reject(new Refusal(401, ""));

// Sets what asks the user for a token: ask(wrong) resolves when a new one is stored.
export function onToken(ask) {
  askForToken = ask;
}

async function call(method, path, { query, body, json } = {}) {
  const address = query ? `${path}?${new URLSearchParams(query)}` : path;
  for (let wrong = false; ; wrong = true) {
    const headers = {};
    const token = sessionStorage.getItem("token");
    if (token) headers.Authorization = `Bearer ${token}`;
    if (json) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(address, { method, headers, body: json ? JSON.stringify(json) : body });
    } catch {
      throw new Refusal(0, "");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw new Refusal(response.status, await reasonOf(response));
    if (sessionStorage.getItem("token") === token) {
      sessionStorage.removeItem("token");
      await askForToken(wrong || token !== null);
    } // otherwise the user has entered a token since this request was sent
  }
}

async function reasonOf(response) {
  try {
    const refusal = await response.json();
    return refusal.advice ? `${refusal.detail}; ${refusal.advice}` : refusal.detail;
  } catch {
    return response.statusText;
  }
}

const get = async (path, query) => (await call("GET", path, { query })).json();

function form(fields, files) {
  const body = new FormData();
  for (const [key, value] of Object.entries(fields)) body.append(key, value);
  for (const file of files) body.append("files", file, file.name || "camera.jpg");
  return body;
}

export const summary = () => get("/summary");
export const classes = async () => (await get("/classes")).classes;
export const map = () => get("/map");
export const imagesOf = async (name) => (await get("/classes/images", { name })).images;

// The six images of the model that are most similar to one of its images.
export async function similarTo(id) {
  const response = await call("POST", "/search", { query: { id, neighbours: 6 } });
  return (await response.json()).neighbours;
}

// Sends a change; resolves to the number with which it can be undone.
async function change(method, path, options) {
  const response = await call(method, path, options);
  return response.headers.get("metarep-undo");
}

export const rename = (name, to, merge) => change("PATCH", "/classes", { json: { name, to, merge } });
export const removeClass = (name) => change("DELETE", "/classes", { query: { name } });
export const move = (id, to) => change("PATCH", `/images/${id}`, { json: { to } });
export const removeImage = (id) => change("DELETE", `/images/${id}`);
export const undo = (number) => call("POST", "/undo", { query: { change: number } });
export const download = async () => (await call("GET", "/model")).blob();
export const onnx = async () => (await call("GET", "/model.onnx")).blob();

export async function predict(file, neighbours = 5) {
  const request = call("POST", "/predict", { query: { neighbours }, body: form({}, [file]) });
  const response = await withFileName(request, [file]);
  return (await response.json()).answers[0];
}

// Ranks unlabelled photographs: `files`, or images as an earlier response has `encoded` them. See /suggest.
export async function suggest({ files, encoded }, number) {
  const body = form({}, files ?? []);
  for (const each of encoded ?? []) body.append("encoded", each);
  const request = call("POST", "/suggest", { query: { number }, body });
  return (await (files ? withFileName(request, files) : request)).json();
}

// Adds files to a class. Resolves to {label, ids, repeats}: the class as the model calls it, the numbers of the new
// images, and the files that the model has already, as {item, same_as, label}.
export async function teach(name, files) {
  const response = await withFileName(call("POST", "/classes", { body: form({ name }, files) }), files);
  return { repeats: [], ...(await response.json()) };
}

// Puts the name of the file into a refusal, if there was one file.
async function withFileName(request, files) {
  try {
    return await request;
  } catch (error) {
    if (files.length === 1) error.item = files[0].name;
    throw error;
  }
}

// Pictures by number, as addresses of blobs, because a plain <img src> could not send the token. They can be kept for
// good: a number is never given to another image.
const pictures = new Map();

export function picture(id) {
  if (!pictures.has(id)) {
    const loading = call("GET", `/images/${id}`).then(async (response) => URL.createObjectURL(await response.blob()));
    loading.catch(() => pictures.delete(id));
    pictures.set(id, loading);
  }
  return pictures.get(id);
}
