// The page: camera, photos, threshold, boxes.
"use strict";

const at = (id) => document.getElementById(id);
const text = (id) => at(id).textContent.trim();
const model = JSON.parse(text("model"));
const canvas = at("canvas"), context = canvas.getContext("2d");
const frame = document.createElement("canvas"), pen = frame.getContext("2d", { willReadFrequently: true });
const LARGEST = 4096; // pixels a side: phones refuse larger canvases
const COLOURS = ["#ffd60a", "#40e0ff", "#ff7ad9", "#7dff6b", "#ff9f43", "#b69cff"];
const SHOWN = 12; // detections listed below the picture

let network = null;
let shown = null; // the picture on the canvas: { photo: ImageData, outputs, detections, ms }
let photos = [], current = 0;
let stream = null, facing = "environment", times = [];
let wanted = 0; // counts starts and stops of the camera

function say(message, isError = false) {
  at("status").textContent = message;
  at("status").classList.toggle("error", isError);
}

const nameOf = (label) => (label === null ? "unused" : label);

// Detect in what `frame` shows; the time is the median of several runs.
function detect(runs) {
  const photo = pen.getImageData(0, 0, frame.width, frame.height), took = [];
  let outputs;
  while (took.length < runs) {
    const start = performance.now();
    outputs = network.run(network.resize(photo));
    took.push(performance.now() - start);
  }
  shown = { photo, outputs, ms: middle(took) };
  draw();
}

function draw() {
  if (!shown) return;
  const { photo, outputs } = shown;
  shown.detections = network.detections(outputs, photo, Number(at("threshold").value));
  if (canvas.width !== photo.width || canvas.height !== photo.height) {
    canvas.width = photo.width;
    canvas.height = photo.height;
  }
  canvas.hidden = false;
  at("empty").hidden = true;
  at("stage").classList.add("full");
  context.putImageData(photo, 0, 0);
  const unit = Math.max(1, photo.width / (canvas.clientWidth || photo.width)); // canvas pixels in one of the screen
  for (const one of shown.detections) box(one, photo, unit);
  list();
}

function box({ label, score, box: [top, left, bottom, right] }, { width, height }, unit) {
  const colour = COLOURS[model.labels.indexOf(label) % COLOURS.length];
  const x = left * width, y = top * height;
  context.lineWidth = 3 * unit;
  context.strokeStyle = colour;
  context.strokeRect(x, y, (right - left) * width, (bottom - top) * height);
  const words = `${nameOf(label)} ${score.toFixed(2)}`;
  context.font = `600 ${14 * unit}px system-ui, sans-serif`;
  const wide = context.measureText(words).width + 10 * unit, high = 20 * unit;
  const tagX = Math.max(0, Math.min(x - 1.5 * unit, width - wide)), tagY = y >= high ? y - high : y;
  context.fillStyle = colour;
  context.fillRect(tagX, tagY, wide, high);
  context.fillStyle = "#111";
  context.fillText(words, tagX + 5 * unit, tagY + 15 * unit);
}

function list() {
  const { detections, photo, ms } = shown;
  const time = stream ? `${middle(times).toFixed(1)} ms a frame` : `${ms.toFixed(1)} ms`;
  const count = `${detections.length} ${detections.length === 1 ? "detection" : "detections"}`;
  say(`${count} · ${time} · ${photo.width} × ${photo.height} pixels`);
  at("found").replaceChildren(...detections.slice(0, SHOWN).map(({ label, score, box: sides }) => {
    const item = document.createElement("li");
    const [top, left, bottom, right] = sides.map((side, i) => Math.round(side * (i % 2 ? photo.width : photo.height)));
    item.textContent = `${nameOf(label)}, score ${score.toFixed(2)}, from ${left}, ${top} to ${right}, ${bottom}`;
    return item;
  }));
}

const middle = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1] || 0;

// Photos

function take(files) {
  const chosen = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!chosen.length) {
    if (files.length) say("None of these files is a picture.", true);
    return;
  }
  stop();
  photos = chosen;
  show(0);
}

async function show(index) {
  current = (index + photos.length) % photos.length;
  const file = photos[current];
  at("turn").hidden = photos.length < 2;
  at("position").textContent = `${current + 1} of ${photos.length}`;
  let picture;
  try { // colours as in the file, as other programs read it
    picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    if (file === photos[current]) say(`${file.name}: this browser cannot read the picture. Choose a JPEG or PNG file.`, true);
    return;
  }
  if (stream || file !== photos[current]) return; // another was chosen meanwhile
  const scale = Math.min(1, LARGEST / Math.max(picture.width, picture.height));
  paint(picture, Math.round(picture.width * scale), Math.round(picture.height * scale));
  picture.close();
  detect(5);
}

function paint(picture, width, height) {
  frame.width = width;
  frame.height = height;
  pen.fillRect(0, 0, width, height); // black behind what is transparent
  pen.drawImage(picture, 0, 0, width, height);
}

// Camera

async function start() {
  stop();
  if (!navigator.mediaDevices) {
    say("The browser gives the camera to pages from https, localhost or the disk only.", true);
    return;
  }
  say("Waiting for the camera …");
  const turn = wanted, video = document.createElement("video");
  let own;
  try {
    own = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } } });
    video.muted = video.playsInline = true;
    video.srcObject = own;
    await video.play();
  } catch (error) {
    if (own) end(own);
    const why = { NotAllowedError: "its use was not allowed", NotFoundError: "there is none" }[error.name] || error.message;
    if (turn === wanted) say(`No camera: ${why}.`, true);
    return;
  }
  if (turn !== wanted) { // stopped, or started again, while the browser asked
    end(own);
    return;
  }
  stream = own;
  own.getTracks()[0].addEventListener("ended", () => { if (stream === own) { stop(); say("The camera ended.", true); } });
  at("status").setAttribute("aria-live", "off"); // it changes with every frame
  at("camera").setAttribute("aria-pressed", "true");
  at("camera").textContent = "Stop";
  at("turn").hidden = true;
  const next = (call) => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(call) : requestAnimationFrame(call));
  const look = () => {
    if (stream !== own) return;
    if (video.videoWidth) {
      paint(video, video.videoWidth, video.videoHeight);
      detect(1);
      times = [...times.slice(-59), shown.ms];
    }
    next(look);
  };
  next(look);
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  if (stream === own) at("other").hidden = cameras.length < 2;
}

function stop() {
  wanted++;
  if (stream) end(stream);
  stream = null;
  times = [];
  at("status").setAttribute("aria-live", "polite");
  at("camera").setAttribute("aria-pressed", "false");
  at("camera").textContent = "Camera";
  at("other").hidden = true;
}

const end = (one) => one.getTracks().forEach((track) => track.stop());

// Controls

function connect() {
  at("threshold").value = model.threshold;
  at("value").textContent = Number(at("threshold").value).toFixed(2);
  at("threshold").addEventListener("input", () => {
    at("value").textContent = Number(at("threshold").value).toFixed(2);
    draw();
  });
  at("camera").addEventListener("click", () => (stream ? stop() : start()));
  at("other").addEventListener("click", () => {
    facing = facing === "user" ? "environment" : "user";
    start();
  });
  at("choose").addEventListener("click", () => at("files").click());
  at("files").addEventListener("change", () => { take(at("files").files); at("files").value = ""; });
  at("previous").addEventListener("click", () => show(current - 1));
  at("next").addEventListener("click", () => show(current + 1));
  addEventListener("paste", (event) => take(event.clipboardData.files));
  addEventListener("resize", draw);
  addEventListener("dragover", (event) => { event.preventDefault(); at("stage").classList.add("over"); });
  addEventListener("dragleave", () => at("stage").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("stage").classList.remove("over");
    take(event.dataTransfer.files);
  });
}

Network.load(model, text("kernels"), text("halves"), text("singles"), text("anchors")).then(
  (loaded) => {
    network = loaded;
    connect();
    const until = performance.now() + 150; // meanwhile the browser compiles what runs often
    do network.run(network.resize(new ImageData(64, 64))); while (performance.now() < until);
    document.body.dataset.ready = "yes";
  },
  (error) => say(`This browser cannot run the detector: it needs WebAssembly with SIMD (${error.message}).`, true),
);
