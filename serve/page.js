"use strict";
// Shows the boxes and masks of two models in one image. Data from the server is inserted as text, never as markup.

const MIN_CONFIDENCE = 0.05; // of requests, so that the slider can filter without a new request
const MASK_OPACITY = 0.5;
const IOU_DELAY = 250; // ms from the last move of the slider to the request
const NONE = "";

const $ = (id) => document.getElementById(id);
const state = { info: null, key: "", blob: null, bitmap: null, panels: [], hidden: new Set(), round: 0 };

// ---- requests

async function request(path, options = {}) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (response.ok) return response;
  if (response.status === 401) $("key-box").hidden = false;
  const body = await response.json().catch(() => ({}));
  throw new Error(typeof body.detail === "string" ? body.detail : `The server responded with status ${response.status}.`);
}

function form(fields) {
  const data = new FormData();
  for (const [key, value] of Object.entries(fields)) data.append(key, value);
  data.append("image", state.blob, "image");
  return data;
}

async function connect() {
  try {
    state.info = await (await request("v1/models")).json();
  } catch (error) {
    showStatus("bad", "not connected");
    showError(error.message);
    return;
  }
  $("key-box").hidden = true;
  showError("");
  const { models, defaults } = state.info;
  showStatus("good", models.length === 1 ? "1 model ready" : `${models.length} models ready`);
  fill($("model-a"), models.map((model) => model.name), models[0].name);
  fill($("model-b"), [NONE, ...models.map((model) => model.name)], models.length > 1 ? models[1].name : NONE);
  $("conf").value = Math.max(defaults.conf, MIN_CONFIDENCE);
  $("iou").value = defaults.iou;
  showNumbers();
  choosePanels();
}

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name) => new Option(name || "none", name, false, name === chosen)));
}

// ---- a panel per selected model

function choosePanels() {
  const names = [...new Set([$("model-a").value, $("model-b").value])].filter(Boolean);
  for (const panel of state.panels) panel.abort?.abort();
  state.panels = names.map((name) => {
    const kept = state.panels.find((panel) => panel.name === name);
    return kept ?? makePanel(state.info.models.find((model) => model.name === name));
  });
  $("panels").replaceChildren(...state.panels.map((panel) => panel.root));
  detectAll();
}

function makePanel(model) {
  const root = $("panel").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  const panel = { name: model.name, root, find, result: null, abort: null };
  panel.colors = new Map(model.classes.map(({ name, color }) => [name, color]));
  find("h2").textContent = model.name;
  find(".times").textContent = model.format;
  find(".save").addEventListener("click", () => save(panel));
  return panel;
}

function detectAll() {
  if (state.bitmap) showError("");
  for (const panel of state.panels) panel.root.hidden = !state.bitmap;
  if (state.bitmap) for (const panel of state.panels) detect(panel);
}

async function detect(panel) {
  panel.abort?.abort();
  const abort = (panel.abort = new AbortController());
  panel.root.ariaBusy = "true";
  panel.find(".wait").hidden = false;
  draw(panel);
  try {
    const body = form({ conf: MIN_CONFIDENCE, iou: $("iou").value });
    const path = `v1/detect/${encodeURIComponent(panel.name)}`;
    const response = await request(path, { method: "POST", body, signal: abort.signal });
    const result = await response.json();
    if (panel.abort !== abort) return;
    panel.result = result;
  } catch (error) {
    if (error.name === "AbortError" || panel.abort !== abort) return;
    panel.result = null;
    showError(`${panel.name}: ${error.message}`);
  }
  panel.root.ariaBusy = "false";
  panel.find(".wait").hidden = true;
  show();
}

// ---- drawing

const confident = (panel) => (panel.result?.detections ?? []).filter((row) => row.confidence >= Number($("conf").value));
const visible = (panel) => confident(panel).filter((row) => !state.hidden.has(row.name));

function show() {
  showLegend();
  for (const panel of state.panels) {
    const rows = visible(panel);
    panel.find(".count strong").textContent = panel.result ? rows.length : "";
    panel.find(".count span").textContent = panel.result ? (rows.length === 1 ? "box" : "boxes") : "";
    panel.find(".times").textContent = panel.result ? times(panel.result) : "no result";
    panel.find("tbody").replaceChildren(...rows.map(tableRow));
    draw(panel);
  }
  if (state.panels.every((panel) => panel.root.ariaBusy === "false")) {
    $("news").textContent = state.panels.map((panel) => summary(panel.name, visible(panel))).join("; ");
  }
}

function times({ times_ms: ms, input }) {
  const masks = ms.masks === undefined ? "queue and NMS" : "queue, NMS and masks";
  const rest = ms.decode + ms.queue + ms.nms + (ms.masks ?? 0);
  const round = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
  return `${round(ms.inference)} ms inference, ${round(rest)} ms decoding, ${masks}, at ${input.width} x ${input.height}`;
}

function tableRow(row) {
  const tr = document.createElement("tr");
  const sides = [row.xmin, row.ymin, row.xmax - row.xmin, row.ymax - row.ymin].map((side) => side.toFixed(0));
  for (const text of [row.name, row.confidence.toFixed(2), ...sides]) tr.insertCell().textContent = text;
  return tr;
}

function draw(panel) {
  const canvas = panel.find("canvas");
  const { bitmap } = state;
  if (!bitmap) return;
  const { width, height } = bitmap;
  canvas.style.aspectRatio = `${width} / ${height}`;
  // Line widths and fonts are in pixels of the screen, whatever the size of the image.
  const shown = Math.max(Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height), 1);
  const zoom = Math.min(Math.max((shown * devicePixelRatio) / width, 1), 4);
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.scale(zoom, zoom);
  pen.drawImage(bitmap, 0, 0, width, height);
  const rows = panel.root.ariaBusy === "true" ? [] : visible(panel).reverse(); // the most confident on top
  const color = (row) => panel.colors.get(row.name) ?? "#808080";
  for (const row of rows) drawMask(pen, row, color(row));
  for (const row of rows) drawBox(pen, row, color(row), width / shown);
  for (const row of rows) drawLabel(pen, row, color(row), width / shown, width);
  canvas.setAttribute("aria-label", summary(panel.name, rows));
}

// Rows of segmentation models contain a polygon, which is empty if the mask is.
function drawMask(pen, row, color) {
  const path = new Path2D();
  for (const [x, y] of row.polygon ?? []) path.lineTo(x, y);
  pen.globalAlpha = MASK_OPACITY;
  pen.fillStyle = color;
  pen.fill(path);
  pen.globalAlpha = 1;
}

function drawBox(pen, row, color, scale) {
  pen.lineWidth = 2 * scale;
  pen.strokeStyle = color;
  pen.strokeRect(row.xmin, row.ymin, row.xmax - row.xmin, row.ymax - row.ymin);
}

function drawLabel(pen, row, color, scale, right) {
  const text = `${row.name} ${row.confidence.toFixed(2)}`;
  pen.font = `600 ${12 * scale}px system-ui, sans-serif`;
  const tab = { width: pen.measureText(text).width + 8 * scale, height: 17 * scale };
  const left = Math.max(Math.min(row.xmin - scale, right - tab.width), 0);
  const top = row.ymin >= tab.height ? row.ymin - tab.height : row.ymin;
  pen.fillStyle = color;
  pen.fillRect(left, top, tab.width, tab.height);
  pen.fillStyle = isLight(color) ? "#000" : "#fff";
  pen.textBaseline = "middle";
  pen.fillText(text, left + 4 * scale, top + tab.height / 2);
}

function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}

function counts(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.name, (found.get(row.name) ?? 0) + 1);
  return found;
}

function summary(name, rows) {
  const words = [...counts(rows)].map(([label, count]) => `${count} ${label}`);
  return `${name} found ${words.join(", ") || "nothing"}`;
}

function showLegend() {
  const perPanel = state.panels.map((panel) => counts(confident(panel)));
  const total = (name) => perPanel.reduce((sum, found) => sum + (found.get(name) ?? 0), 0);
  const names = new Set([...perPanel.flatMap((found) => [...found.keys()]), ...state.hidden]);
  const focused = document.activeElement?.dataset?.name;
  const ordered = [...names].sort((one, other) => total(other) - total(one) || one.localeCompare(other));
  const buttons = ordered.map((name) => legendButton(name, perPanel.map((found) => found.get(name) ?? 0)));
  $("classes").hidden = buttons.length === 0;
  $("classes").replaceChildren(...buttons);
  buttons.find((button) => button.dataset.name === focused)?.focus();
}

function legendButton(name, numbers) {
  const button = document.createElement("button");
  const [swatch, label, count] = ["span", "span", "span"].map((tag) => document.createElement(tag));
  swatch.className = "swatch";
  swatch.style.backgroundColor = state.panels.map((panel) => panel.colors.get(name)).find(Boolean) ?? "";
  label.textContent = name;
  count.className = "numbers";
  count.textContent = numbers.join(" | ");
  const words = state.panels.map((panel, index) => `${numbers[index]} by ${panel.name}`).join(", ");
  button.type = "button";
  button.dataset.name = name;
  button.title = `${words}; click to show or hide`;
  button.setAttribute("aria-label", `${name}: ${words}`);
  button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
  button.append(swatch, label, count);
  button.addEventListener("click", () => toggle(name));
  return button;
}

function toggle(name) {
  if (!state.hidden.delete(name)) state.hidden.add(name);
  show();
}

function showNumbers() {
  for (const id of ["conf", "iou"]) $(`${id}-text`).textContent = Number($(id).value).toFixed(2);
}

function showStatus(kind, text) {
  $("state").className = `state ${kind}`;
  $("state-text").textContent = text;
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function save(panel) {
  panel.find("canvas").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${panel.name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

// ---- images: from a file, from the clipboard, from the camera

async function loadImage(blob, name) {
  const round = ++state.round;
  showError("");
  const limit = state.info?.limits.upload_mb ?? Infinity;
  if (blob.size > limit * 2 ** 20) {
    showError(`${name} has ${(blob.size / 2 ** 20).toFixed(1)} MB; the limit of this server is ${limit} MB.`);
    return;
  }
  const before = state.blob;
  state.blob = blob;
  try {
    const bitmap = await decode(blob);
    if (round !== state.round) return;
    state.bitmap = bitmap;
  } catch (error) {
    if (round !== state.round) return;
    state.blob = before;
    showError(`${name}: ${error.message}`);
    return;
  }
  $("drop").classList.add("full");
  $("image-name").textContent = name;
  const { width, height } = state.bitmap;
  $("image-facts").textContent = `${width} x ${height} pixels, ${Math.max(blob.size / 1024, 1).toFixed(0)} KB`;
  $("choose").textContent = "Choose another";
  for (const panel of state.panels) panel.result = null;
  detectAll();
}

// Server and browser both rotate images according to their Exif data. Formats that the browser cannot show
// (TIFF) are converted by the server to a JPEG, without boxes because of the confidence threshold of 1.
async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    const model = state.info?.models[0];
    if (!model) throw new Error("not an image that this browser can show");
    const path = `v1/detect/${encodeURIComponent(model.name)}`;
    const response = await request(path, { method: "POST", body: form({ conf: 1, format: "image" }) });
    return createImageBitmap(await response.blob());
  }
}

function fromList(list) {
  const file = [...(list ?? [])].find((item) => item instanceof File);
  if (file) loadImage(file, file.name || "pasted image");
}

async function cameraOn() {
  showError("");
  if (!navigator.mediaDevices?.getUserMedia) {
    showError("Browsers allow the camera on localhost and https only.");
    return;
  }
  try {
    const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false };
    $("video").srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    showError(error.name === "NotAllowedError" ? "Camera access was denied." : "No camera was found.");
    return;
  }
  $("shoot").disabled = true; // until there is a frame
  $("camera-box").hidden = false;
  try {
    await $("video").play();
  } catch {
    return; // cancelled before the first frame
  }
  $("shoot").disabled = false;
  $("shoot").focus();
}

function cameraOff() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("camera-box").hidden = true;
}

function takePhoto() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  cameraOff();
  canvas.toBlob((blob) => blob && loadImage(blob, "camera.jpg"), "image/jpeg", 0.95);
}

// ---- events

function debounce(callback, delay) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(callback, delay);
  };
}

function listen() {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    fromList($("file").files);
    $("file").value = ""; // so that the same file can be chosen again
  });
  document.body.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.body.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
  document.body.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    fromList(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => fromList(event.clipboardData?.files));
  $("camera").addEventListener("click", cameraOn);
  $("camera-off").addEventListener("click", cameraOff);
  $("shoot").addEventListener("click", takePhoto);
  $("key-box").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = $("key").value;
    connect();
  });
  for (const id of ["model-a", "model-b"]) $(id).addEventListener("change", choosePanels);
  for (const id of ["conf", "iou"]) $(id).addEventListener("input", showNumbers);
  $("conf").addEventListener("input", show);
  $("iou").addEventListener("input", debounce(detectAll, IOU_DELAY));
  addEventListener("resize", debounce(() => state.panels.forEach(draw), 100));
}

listen();
connect();
