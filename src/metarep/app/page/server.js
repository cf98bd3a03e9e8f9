// What is asked of the server. Every failure becomes a Refusal: a status (0 without an answer) and one line of detail.

export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let askForToken = () => Promise.reject(new Refusal(401, ""));

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
    let answer;
    try {
      answer = await fetch(address, { method, headers, body: json ? JSON.stringify(json) : body });
    } catch {
      throw new Refusal(0, "");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw new Refusal(answer.status, await detail(answer));
    if (sessionStorage.getItem("token") === token) {
      sessionStorage.removeItem("token");
      await askForToken(wrong || token !== null);
    } // otherwise somebody has given one in the meantime
  }
}

async function detail(answer) {
  try {
    const refusal = await answer.json();
    return refusal.advice ? `${refusal.detail}; ${refusal.advice}` : refusal.detail;
  } catch {
    return answer.statusText;
  }
}

const get = async (path, query) => (await call("GET", path, { query })).json();

function form(fields, files, name) {
  const body = new FormData();
  for (const [key, value] of Object.entries(fields)) body.append(key, value);
  for (const file of files) body.append(name, file, file.name || "camera.jpg");
  return body;
}

export const summary = () => get("/summary");
export const classes = async () => (await get("/classes")).classes;
export const map = () => get("/map");
export const imagesOf = async (name) => (await get("/classes/images", { name })).images;
export const like = async (id) =>
  (await (await call("POST", "/search", { query: { id, neighbours: 6 } })).json()).neighbours;
// A change: resolves to the number with which it can be taken back.
const change = async (...asked) => (await call(...asked)).headers.get("metarep-undo");
export const rename = (name, to, merge) => change("PATCH", "/classes", { json: { name, to, merge } });
export const removeClass = (name) => change("DELETE", "/classes", { query: { name } });
export const move = (id, to) => change("PATCH", `/images/${id}`, { json: { to } });
export const removeImage = (id) => change("DELETE", `/images/${id}`);
export const undo = (number) => call("POST", "/undo", { query: { change: number } });
export const download = async () => (await call("GET", "/model")).blob();
export const onnx = async () => (await call("GET", "/model.onnx")).blob();

export async function predict(file, neighbours = 5) {
  const asked = call("POST", "/predict", { query: { neighbours }, body: form({}, [file], "files") });
  return (await (await named(asked, [file])).json()).answers[0];
}

// {label, ids, repeats}: the class as it is kept, what was learned, and which files are pictures that the model had:
// {item, same_as, label}.
export async function teach(name, files) {
  const answer = await (await named(call("POST", "/classes", { body: form({ name }, files, "files") }), files)).json();
  return { repeats: [], ...answer };
}

// A refusal remembers the file, where there was one.
async function named(asked, files) {
  try {
    return await asked;
  } catch (error) {
    if (files.length === 1) error.item = files[0].name;
    throw error;
  }
}

// Pictures by number, as addresses of blobs: a plain <img src> could not bring the token. A number never gets another.
const pictures = new Map();

export function picture(id) {
  if (!pictures.has(id)) {
    const coming = call("GET", `/images/${id}`).then(async (answer) => URL.createObjectURL(await answer.blob()));
    coming.catch(() => pictures.delete(id));
    pictures.set(id, coming);
  }
  return pictures.get(id);
}
