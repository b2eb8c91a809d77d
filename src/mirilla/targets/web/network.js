// The network: pixels in, detections out. Nothing here knows the page, so Node runs it as well.
"use strict";

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const floatsOf = (base64) => new Float32Array(bytesOf(base64).buffer);

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : sign * fraction * 2 ** -24;
}

class Network {
  // model: plan and post-processing, as web_file.py writes them; the other arguments are base64.
  static async load(model, kernels, halves, singles, anchors) {
    const memory = new WebAssembly.Memory({ initial: model.pages });
    const { instance } = await WebAssembly.instantiate(bytesOf(kernels), { env: { memory } });
    const values = new Float32Array(memory.buffer);
    values.set(Float32Array.from(new Uint16Array(bytesOf(halves).buffer), fromHalf), model.halves_start);
    values.set(floatsOf(singles), model.singles_start);
    return new Network(model, instance.exports, values, floatsOf(anchors));
  }

  constructor(model, kernels, values, anchors) {
    Object.assign(this, { model, values, anchors, count: anchors.length / 4 });
    this.steps = model.steps.map(([name, ...numbers]) =>
      name in kernels ? () => kernels[name](...numbers) : () => this[name](...numbers));
  }

  // normalised pixels (height, width, 3) -> boxes (A, 4) yxyx of the network's input, and scores (A, C)
  run(pixels) {
    const { start, row, height, width } = this.model.input;
    for (let y = 0; y < height; y++) {
      this.values.set(pixels.subarray(y * width * 3, (y + 1) * width * 3), start + y * row);
    }
    for (const step of this.steps) step();
    return { boxes: this.boxes(), scores: this.scores() };
  }

  boxes() {
    const [scaleY, scaleX, scaleHeight, scaleWidth] = this.model.coder, { values, anchors } = this;
    const boxes = new Float32Array(4 * this.count);
    for (let i = 0, code = this.model.codes; i < boxes.length; i += 4, code += 4) {
      const y = anchors[i] + values[code] / scaleY * anchors[i + 2];
      const x = anchors[i + 1] + values[code + 1] / scaleX * anchors[i + 3];
      const height = Math.exp(values[code + 2] / scaleHeight) * anchors[i + 2] / 2;
      const width = Math.exp(values[code + 3] / scaleWidth) * anchors[i + 3] / 2;
      boxes.set([y - height, x - width, y + height, x + width], i);
    }
    return boxes;
  }

  scores() {
    const { logits, classes, converter } = this.model;
    if (converter !== "SOFTMAX") {
      const scores = this.values.slice(logits, logits + this.count * classes);
      return converter === "SIGMOID" ? scores.map((x) => 1 / (1 + Math.exp(-x))) : scores;
    }
    const scores = new Float32Array(this.count * classes);
    for (let i = 0; i < this.count; i++) { // column 0 is the background
      const row = this.values.subarray(logits + i * (classes + 1), logits + (i + 1) * (classes + 1));
      const most = Math.max(...row), powers = Array.from(row, (x) => Math.exp(x - most));
      const sum = powers.reduce((total, power) => total + power);
      for (let k = 0; k < classes; k++) scores[i * classes + k] = powers[k + 1] / sum;
    }
    return scores;
  }

  // The photo's place in the input: { rows, columns } in pixels. A letterboxed photo is at the top left.
  place(photo) {
    const { height, width } = this.model.input;
    if (!this.model.keep_aspect_ratio) return { rows: height, columns: width };
    const half = (x) => { const low = Math.floor(x); return x - low === 0.5 ? low + low % 2 : Math.round(x); }; // to even
    if (photo.height * width >= photo.width * height) {
      return { rows: height, columns: Math.max(1, half(photo.width * height / photo.height)) };
    }
    return { rows: Math.max(1, half(photo.height * width / photo.width)), columns: width };
  }

  // An ImageData (RGBA) as the network's input: bilinear as in TensorFlow 1, without half-pixel centres.
  resize(photo) {
    const { height, width } = this.model.input, { rows, columns } = this.place(photo);
    const pixels = new Float32Array(height * width * 3).fill(-1), data = photo.data;
    const down = neighbours(photo.height, rows, photo.width * 4), across = neighbours(photo.width, columns, 4);
    for (let y = 0; y < rows; y++) {
      const above = down.before[y], below = down.after[y], partY = down.part[y];
      for (let x = 0, to = y * width * 3; x < columns; x++) {
        const left = across.before[x], right = across.after[x], partX = across.part[x];
        for (let channel = 0; channel < 3; channel++, to++) {
          const a = data[above + left + channel], b = data[below + left + channel];
          const upper = a + (data[above + right + channel] - a) * partX;
          const lower = b + (data[below + right + channel] - b) * partX;
          pixels[to] = (upper + (lower - upper) * partY) * 2 / 255 - 1;
        }
      }
    }
    return pixels;
  }

  // What `run` returned -> detections with scores from `threshold`: [{ label, score, box: yxyx of the photo, 0 to 1 }].
  detections({ boxes, scores }, photo, threshold) {
    const { classes, labels, iou, least, per_class, most } = this.model, { height, width } = this.model.input;
    const { rows, columns } = this.place(photo), high = [rows / height, columns / width, rows / height, columns / width];
    const found = [];
    for (let k = 0; k < classes; k++) {
      let candidates = [];
      for (let i = 0; i < this.count; i++) {
        const score = scores[i * classes + k];
        if (score >= threshold && score > least) candidates.push({ score, corners: boxes.subarray(4 * i, 4 * i + 4) });
      }
      candidates.sort((a, b) => b.score - a.score);
      const kept = [];
      for (const one of candidates) {
        if (kept.length >= per_class) break;
        if (kept.every((better) => overlap(better.corners, one.corners) <= iou)) kept.push(one);
      }
      for (const { score, corners } of kept) {
        const clipped = Array.from(corners, (side, i) => Math.min(Math.max(side, 0), high[i]));
        if (area(clipped) > 0) found.push({ label: labels[k], score, box: clipped.map((side, i) => side / high[i]) });
      }
    }
    return found.sort((a, b) => b.score - a.score).slice(0, most);
  }

  // Steps without a kernel: `count` rows of `length` values, at distances fromRow and toRow.
  copy(from, fromRow, to, toRow, count, length) {
    for (let i = 0; i < count; i++) {
      this.values.copyWithin(to + i * toRow, from + i * fromRow, from + i * fromRow + length);
    }
  }
  map(from, fromRow, to, toRow, count, length, value) {
    const { values } = this;
    for (let i = 0; i < count; i++) {
      for (let k = 0; k < length; k++) values[to + i * toRow + k] = value(values[from + i * fromRow + k], i, k);
    }
  }
  clamp(from, fromRow, to, toRow, count, length, low, high) {
    this.map(from, fromRow, to, toRow, count, length, (x) => Math.min(Math.max(x, low), high));
  }
  sigmoid(from, fromRow, to, toRow, count, length) {
    this.map(from, fromRow, to, toRow, count, length, (x) => 1 / (1 + Math.exp(-x)));
  }
  add(a, aRow, b, bRow, to, toRow, count, length, low, high) {
    const { values } = this;
    this.map(a, aRow, to, toRow, count, length, (x, i, k) => Math.min(Math.max(x + values[b + i * bRow + k], low), high));
  }
}

// For every output row or column: where the pixels before and after it lie, and the fraction of the way between.
function neighbours(side, out, step) {
  const before = new Int32Array(out), after = new Int32Array(out), part = new Float32Array(out);
  for (let i = 0; i < out; i++) {
    const position = Math.fround(i * Math.fround(side / out)), whole = Math.min(Math.floor(position), side - 1);
    before[i] = whole * step;
    after[i] = Math.min(whole + 1, side - 1) * step;
    part[i] = position - whole;
  }
  return { before, after, part };
}

const area = ([top, left, bottom, right]) => Math.max(bottom - top, 0) * Math.max(right - left, 0);

function overlap(a, b) {
  const shared = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  const union = area(a) + area(b) - shared;
  return union > 0 ? shared / union : 0;
}
