// The encoder and the classes of the model: its facts, and its graph in onnxruntime-web.

const here = (name) => new URL(name, import.meta.url).href;

async function fetched(name) {
  const response = await fetch(here(name));
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

let facts = null;
let session = null;

// Resolves to what the page knows of the model beside its graph, with the mean of each class.
export function modelFacts() {
  facts ??= Promise.all([fetched("model.json"), fetched("means.bin")]).then(async ([text, means]) => {
    return { ...(await text.json()), means: new Float32Array(await means.arrayBuffer()) };
  });
  facts.catch(() => (facts = null));
  return facts;
}

// Resolves when the graph can run. One thread, because more would need headers that a static server does not send.
function openNetwork() {
  session ??= Promise.all([import("./ort.js"), fetched("model.onnx")]).then(async ([ort, graph]) => {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: here("ort.wasm") };
    const opened = await ort.InferenceSession.create(await graph.arrayBuffer(), { executionProviders: ["wasm"] });
    return { ort, opened };
  });
  session.catch(() => (session = null));
  return session;
}

let last = Promise.resolve();

// Runs the graph for one image; resolves to {probabilities, familiarity, points}.
export function run(pixels, { size, channels }) {
  const own = last.then(async () => {
    const { ort, opened } = await openNetwork();
    const images = new ort.Tensor("uint8", pixels, [1, channels, ...size]);
    const { probabilities, familiarity, points } = await opened.run({ images });
    return { probabilities: probabilities.data, familiarity: familiarity.data[0], points: points.data };
  });
  last = own.catch(() => {}); // a session runs one image at a time
  return own;
}
