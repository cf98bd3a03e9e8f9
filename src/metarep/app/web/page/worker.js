// The service worker: keeps a copy of the page's own files, so that it opens without its server.

const NAME = `metarep ${self.registration.scope}`;
const OWN = `${NAME} ${"VERSION"}`;
const FILES = ["FILES"];

self.addEventListener("install", (event) => {
  const requests = ["./", ...FILES].map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(OWN).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const clear = async () => {
    for (const each of await caches.keys()) if (each.startsWith(`${NAME} `) && each !== OWN) await caches.delete(each);
    await self.clients.claim();
  };
  event.waitUntil(clear());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET" || !event.request.url.startsWith(self.registration.scope)) return;
  const stored = caches.open(OWN).then((cache) => cache.match(event.request, { ignoreSearch: true }));
  event.respondWith(stored.then((found) => found ?? fetch(event.request)));
});
