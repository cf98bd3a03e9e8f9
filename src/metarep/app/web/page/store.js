// What the visitor has added, kept in the storage of the browser; in memory alone where it has none.

const TABLE = "images";
let database = null;
let memory = null; // records by their number, if there is no storage
let next = 1;

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// Opens the storage; resolves to whether what is added stays when the page is closed.
export async function openStore(name) {
  try {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id", autoIncrement: true });
    database = await done(request);
    navigator.storage?.persist?.().catch(() => {}); // or a browser that is short of space may throw it away
  } catch {
    memory = new Map();
  }
  return memory === null;
}

const table = (mode) => database.transaction(TABLE, mode).objectStore(TABLE);

// All records, the oldest first.
export const allRecords = async () => (memory ? [...memory.values()] : done(table("readonly").getAll()));

// Writes a record {id?, label, item, png, points, encoding}; resolves to its number.
export async function putRecord(record) {
  if (!memory) return done(table("readwrite").put(record));
  const id = record.id ?? next++;
  memory.set(id, { ...record, id });
  return id;
}

export async function dropRecord(id) {
  if (memory) memory.delete(id);
  else await done(table("readwrite").delete(id));
}
