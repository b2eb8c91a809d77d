// Runs the network of a page in Node: node -e "$(cat node.js)" PAGE. Reads normalised pictures from standard input,
// writes boxes and scores to standard output; all float32.
"use strict";

const { readFileSync, readSync, writeSync } = require("fs");
const page = readFileSync(process.argv[1], "utf-8");
const part = (id) => page.match(new RegExp(`<script[^>]* id="${id}">\n?([^]*?)</script>`))[1].trim();

function filled(array) { // false at the end of the input
  const bytes = new Uint8Array(array.buffer);
  for (let at = 0; at < bytes.length;) {
    const count = readSync(0, bytes, at, bytes.length - at);
    if (!count) return false;
    at += count;
  }
  return true;
}

function write(array) {
  const bytes = new Uint8Array(array.buffer);
  for (let at = 0; at < bytes.length;) at += writeSync(1, bytes, at, bytes.length - at);
}

async function main() {
  const Network = new Function(`${part("network")}\nreturn Network;`)();
  const model = JSON.parse(part("model"));
  const network = await Network.load(model, ...["kernels", "halves", "singles", "anchors"].map(part));
  const pixels = new Float32Array(model.input.height * model.input.width * 3);
  while (filled(pixels)) {
    const { boxes, scores } = network.run(pixels);
    write(boxes);
    write(scores);
  }
}

main().catch((error) => { console.error(String(error)); process.exit(1); });
