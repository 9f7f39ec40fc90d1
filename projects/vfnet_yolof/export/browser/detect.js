// Detects in an image where the page is shown, by onnxruntime-web (WASM, one thread).
// The model's file says in metadata.json how images are resized and what the classes are called.
"use strict";

const byId = (id) => document.getElementById(id);

// Height and width in pixels that an image gets, as Detectron2's ResizeShortestEdge rounds.
function resizedSize(rule, height, width) {
  if (rule.kind === "none") return [height, width];
  if (rule.kind === "fixed") return [rule.height, rule.width];
  const scale = rule.short_edge_length / Math.min(height, width);
  let size =
    height < width ? [rule.short_edge_length, scale * width] : [scale * height, rule.short_edge_length];
  const longest = Math.max(...size);
  if (longest > rule.max_size) size = size.map((side) => (side * rule.max_size) / longest);
  return size.map((side) => Math.max(1, Math.floor(side + 0.5)));
}

// For each of `count` new pixels the first old one and the weights of those from there on, bilinear.
// Pillow averages over all pixels that one takes the place of; OpenCV takes two whatever the scale.
function taps(length, count, averaging) {
  const scale = length / count;
  const reach = averaging ? Math.max(1, scale) : 1;
  return Array.from({ length: count }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(center - reach + 0.5));
    const end = Math.min(length, Math.max(first + 1, Math.floor(center + reach + 0.5)));
    const weights = [];
    for (let x = first; x < end; x++) {
      weights.push(Math.max(0, 1 - Math.abs(x + 0.5 - center) / reach));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => (sum > 0 ? w / sum : 1 / weights.length)) };
  });
}

// One axis of an array of `before` x `length` x `after` numbers resampled to `count`.
function resampled(pixels, before, length, after, count, averaging, round) {
  if (length === count) return pixels;
  const result = new Float32Array(before * count * after);
  const table = taps(length, count, averaging);
  for (let b = 0; b < before; b++) {
    for (let i = 0; i < count; i++) {
      const { first, weights } = table[i];
      for (let a = 0; a < after; a++) {
        let sum = 0;
        let at = (b * length + first) * after + a;
        for (const weight of weights) {
          sum += weight * pixels[at];
          at += after;
        }
        result[(b * count + i) * after + a] = round ? Math.floor(sum + 0.5) : sum;
      }
    }
  }
  return result;
}

// RGBA bytes of an image as the graph takes them: {data: Float32Array of 3 x H x W, height, width}.
function prepared(rgba, height, width, metadata) {
  const [newHeight, newWidth] = resizedSize(metadata.resize, height, width);
  const fixed = metadata.static_size;
  if (fixed && (fixed[0] !== newHeight || fixed[1] !== newWidth)) {
    throw new Error(
      `this model takes images of ${fixed.join("x")} px only, and this one is resized to ` +
        `${newHeight}x${newWidth}`
    );
  }
  const pillow = metadata.interpolation === "pil";
  let pixels = resampled(rgba, height, width, 4, newWidth, pillow, pillow);
  pixels = resampled(pixels, 1, height, newWidth * 4, newHeight, pillow, true);
  const area = newHeight * newWidth;
  const data = new Float32Array(3 * area);
  const channels = metadata.channel_order === "RGB" ? [0, 1, 2] : [2, 1, 0];
  channels.forEach((channel, plane) => {
    for (let i = 0; i < area; i++) data[plane * area + i] = pixels[4 * i + channel];
  });
  return { data, height: newHeight, width: newWidth };
}

// Detections in an image, in its own pixels: [{name, score, box: [x1, y1, x2, y2]}], best first.
async function detect(session, rgba, height, width, metadata, least) {
  const input = prepared(rgba, height, width, metadata);
  const images = new ort.Tensor("float32", input.data, [1, 3, input.height, input.width]);
  const { boxes, scores, classes, count } = await session.run({ images });
  const scales = [width / input.width, height / input.height];
  const limits = [width, height];
  const found = [];
  for (let i = 0; i < Number(count.data[0]); i++) {
    const box = [0, 1, 2, 3].map((k) =>
      Math.min(Math.max(boxes.data[4 * i + k] * scales[k % 2], 0), limits[k % 2])
    );
    if (scores.data[i] < least || box[2] <= box[0] || box[3] <= box[1]) continue;
    const name = metadata.class_names[Number(classes.data[i])];
    found.push({ name, score: scores.data[i], box });
  }
  return found;
}

function show(canvas, found) {
  const context = canvas.getContext("2d");
  const size = Math.max(12, Math.round(canvas.width / 50));
  context.lineWidth = Math.max(2, size / 8);
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const { name, score, box } of found) {
    const text = `${name} ${score.toFixed(2)}`;
    context.strokeStyle = "#00a0a0";
    context.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
    context.fillStyle = "#006868";
    context.fillRect(box[0], box[1], context.measureText(text).width + 6, size + 4);
    context.fillStyle = "#fff";
    context.fillText(text, box[0] + 3, box[1] + 2);
  }
  const rows = found.map(({ name, score, box }) => {
    const row = document.createElement("tr");
    for (const text of [name, score.toFixed(3), box.map((x) => x.toFixed(1)).join(", ")]) {
      row.insertCell().textContent = text;
    }
    return row;
  });
  byId("found").tBodies[0].replaceChildren(...rows);
  byId("found").hidden = found.length === 0;
}

function say(text, failed = false) {
  byId("status").textContent = text;
  byId("status").className = failed ? "failed" : "";
}

async function loaded(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
}

async function start() {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  const metadata = await (await loaded("metadata.json")).json();
  const model = new Uint8Array(await (await loaded("model.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  byId("title").textContent = metadata.detector;
  document.title = metadata.detector;

  async function detectIn(file) {
    if (!file) return;
    try {
      say("Detecting …");
      const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
      const canvas = byId("canvas");
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(bitmap, 0, 0);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      const began = performance.now();
      const least = Number(byId("least").value);
      const found = await detect(session, data, canvas.height, canvas.width, metadata, least);
      const seconds = ((performance.now() - began) / 1000).toFixed(2);
      show(canvas, found);
      window.found = found; // for whoever drives the page by a program
      say(`${found.length} detections in ${seconds} s`);
    } catch (error) {
      say(`No detections: ${error.message}`, true);
    }
  }

  const input = byId("image");
  input.addEventListener("change", () => detectIn(input.files[0]));
  byId("least").addEventListener("change", () => detectIn(input.files[0]));
  input.disabled = false;
  say("Choose an image; it stays in this browser.");
}

start().catch((error) => say(`The model cannot be loaded: ${error.message}`, true));
