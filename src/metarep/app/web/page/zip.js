// A zip file of a few small files, which are stored and not packed.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

export function checksum(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// Numbers as bytes, the lowest first: numbers([4, value], [2, value], ...).
function numbers(...fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return bytes;
}

const UTF8 = 0x0800; // the names are in UTF-8
const DATE = 33; // 1 January 1980: a zip file needs some date

// The bytes of a zip file of [[name, bytes], ...].
export function zip(files) {
  const parts = [];
  const entries = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const title = new TextEncoder().encode(name);
    const size = bytes.length;
    const common = [[2, 20], [2, UTF8], [2, 0], [2, 0], [2, DATE], [4, checksum(bytes)], [4, size], [4, size], [2, title.length], [2, 0]];
    parts.push(numbers([4, 0x04034b50], ...common), title, bytes);
    entries.push(numbers([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), title);
    offset += 30 + title.length + size;
  }
  const size = entries.reduce((sum, each) => sum + each.length, 0);
  const count = files.length;
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0]);
  return new Blob([...parts, ...entries, end], { type: "application/zip" });
}
