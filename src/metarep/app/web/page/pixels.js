// From a file to the pixels that the encoder takes, by the arithmetic of metarep: the same crop, and Pillow's own
// resampling with its rounding. An image without loss gives the same bytes here and there.

const MOST = 64_000_000; // pixels of a picture
const BITS = 22; // of a coefficient, as Pillow has them
const GREY = [19595, 38470, 7471]; // of 65,536: the luminance of red, green and blue

// Why a file cannot be used, as the key of a text and what is filled in.
export class Unreadable extends Error {
  constructor(key, values) {
    super(key);
    this.values = values;
  }
}

// Resolves to the pixels as uint8, channels first, of {size: [height, width], channels, stretch}.
export async function readPixels(file, wanted) {
  const turned = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, turned);
  } catch {
    throw new Unreadable("web.unreadable", { item: file.name || "" });
  }
  const { width, height } = bitmap;
  if (width * height > MOST) {
    bitmap.close();
    throw new Unreadable("web.large", { item: file.name || "", most: MOST / 1e6 });
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // transparency is laid on white
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  let picture = { data: context.getImageData(0, 0, width, height).data, width, height };
  canvas.width = canvas.height = 0; // gives the memory back at once
  if (await isJpeg(file)) picture = reduce(picture, draft(picture, wanted.size));
  return toChannels(resize(picture, wanted.size, wanted.stretch), wanted.channels);
}

async function isJpeg(file) {
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return start[0] === 0xff && start[1] === 0xd8;
}

// A JPEG is decoded at a half, a quarter or an eighth there, if twice the wanted size remains.
export function draft({ width, height }, size) {
  const least = 2 * Math.max(...size);
  const scale = Math.floor(Math.min(width, height) / least);
  return [8, 4, 2].find((each) => scale >= each) ?? 1;
}

// The means of squares of pixels, which is nearly what decoding at a fraction gives.
export function reduce(picture, by) {
  if (by === 1) return picture;
  const width = Math.ceil(picture.width / by);
  const height = Math.ceil(picture.height / by);
  const data = new Uint8ClampedArray(4 * width * height);
  const sums = new Uint32Array(4 * width);
  for (let y = 0; y < height; y += 1) {
    sums.fill(0);
    const rows = Math.min(by, picture.height - y * by);
    for (let row = 0; row < rows; row += 1) {
      let from = 4 * (y * by + row) * picture.width;
      for (let x = 0; x < picture.width; x += 1, from += 4) {
        const to = 4 * Math.floor(x / by);
        sums[to] += picture.data[from];
        sums[to + 1] += picture.data[from + 1];
        sums[to + 2] += picture.data[from + 2];
      }
    }
    for (let x = 0; x < width; x += 1) {
      const count = rows * Math.min(by, picture.width - x * by);
      const to = 4 * (y * width + x);
      for (let c = 0; c < 3; c += 1) data[to + c] = Math.floor((sums[4 * x + c] + count / 2) / count);
      data[to + 3] = 255;
    }
  }
  return { data, width, height };
}

// The part of a picture that is kept: left, top, right and bottom.
export function cropBox(width, height, size, stretch) {
  let [across, down] = [width / size[1], height / size[0]];
  [across, down] = [Math.min(across, stretch * down), Math.min(down, stretch * across)];
  const left = Math.max(0, (width - across * size[1]) / 2);
  const top = Math.max(0, (height - down * size[0]) / 2);
  return [left, top, width - left, height - top].map(Math.fround); // Pillow takes them in single precision
}

// Scales the part that is kept: a triangle as wide as the pixels of the result, along rows and along columns. The result
// of the first pass is rounded, so the order matters; it is that of Pillow 13, which takes the columns of a tall picture
// first.
export function resize(picture, size, stretch) {
  const { width, height } = picture;
  const [left, top, right, bottom] = cropBox(width, height, size, stretch);
  const across = weights(width, left, right, size[1]);
  const down = weights(height, top, bottom, size[0]);
  if (height - size[0] > 2 * Math.max(width - size[1], 0)) {
    return alongRows(alongColumns(picture, down, 0), across, 0, size[0]);
  }
  const first = down.starts[0];
  const last = size[0] - 1;
  return alongColumns(alongRows(picture, across, first, down.starts[last] + down.counts[last] - first), down, first);
}

function alongRows({ data, width }, plan, first, rows) {
  const size = plan.starts.length;
  const result = new Uint8ClampedArray(4 * size * rows);
  for (let y = 0; y < rows; y += 1) {
    for (let x = 0; x < size; x += 1) {
      sum(data, 4 * ((first + y) * width + plan.starts[x]), 4, plan, x, result, 4 * (y * size + x));
    }
  }
  return { data: result, width: size, height: rows };
}

// `first` is the row of the whole picture that the first row here is.
function alongColumns({ data, width }, plan, first) {
  const size = plan.starts.length;
  const result = new Uint8ClampedArray(4 * width * size);
  for (let y = 0; y < size; y += 1) {
    for (let x = 0; x < width; x += 1) {
      sum(data, 4 * ((plan.starts[y] - first) * width + x), 4 * width, plan, y, result, 4 * (y * width + x));
    }
  }
  return { data: result, width, height: size };
}

// The weighted sum of one pixel of the result, rounded as Pillow rounds it.
function sum(source, from, step, { counts, values, most }, index, target, to) {
  let red = 1 << (BITS - 1);
  let green = red;
  let blue = red;
  const end = index * most + counts[index];
  for (let k = index * most; k < end; k += 1, from += step) {
    const weight = values[k];
    red += source[from] * weight;
    green += source[from + 1] * weight;
    blue += source[from + 2] * weight;
  }
  target[to] = red >> BITS;
  target[to + 1] = green >> BITS;
  target[to + 2] = blue >> BITS;
  target[to + 3] = 255;
}

// For each pixel of the result: the first pixel of the source, how many there are, and their weights.
function weights(length, start, end, size) {
  const scale = Math.fround(end - start) / size;
  const support = Math.max(scale, 1);
  const most = 2 * Math.ceil(support) + 1;
  const starts = new Int32Array(size);
  const counts = new Int32Array(size);
  const values = new Int32Array(size * most);
  for (let i = 0; i < size; i += 1) {
    const centre = start + (i + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(length, Math.trunc(centre + support + 0.5)) - from;
    const own = Array.from({ length: count }, (_, x) => Math.max(0, 1 - Math.abs((x + from - centre + 0.5) / support)));
    const total = own.reduce((before, each) => before + each, 0);
    own.forEach((each, x) => (values[i * most + x] = Math.trunc(0.5 + (each / total) * (1 << BITS))));
    [starts[i], counts[i]] = [from, count];
  }
  return { starts, counts, values, most };
}

// Channels first; with one channel, the luminance.
export function toChannels({ data, width, height }, channels) {
  const area = width * height;
  const pixels = new Uint8Array(channels * area);
  for (let i = 0; i < area; i += 1) {
    const [red, green, blue] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) pixels[i] = (red * GREY[0] + green * GREY[1] + blue * GREY[2] + 0x8000) >> 16;
    else [pixels[i], pixels[area + i], pixels[2 * area + i]] = [red, green, blue];
  }
  return pixels;
}

// Resolves to a PNG with exactly these pixels.
export async function toPng(pixels, { size: [height, width], channels }) {
  const area = width * height;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let i = 0; i < area; i += 1) {
    for (let c = 0; c < 3; c += 1) image.data[4 * i + c] = pixels[(channels === 1 ? 0 : c * area) + i];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
