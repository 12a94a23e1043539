"use strict";
// Shows what two models find in one image. Everything from the server is put in as text, never as markup.

const LOWEST = 0.05; // asked for, so that the confidence slider can filter without asking again
const IOU_PAUSE = 250; // ms without a move of the slider before the server is asked
const NONE = "";

const $ = (id) => document.getElementById(id);
const state = { offer: null, key: "", blob: null, bitmap: null, panels: [], hidden: new Set(), round: 0 };

// ---- talking to the server

async function ask(path, options = {}) {
  const headers = state.key ? { "X-API-Key": state.key } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) $("key-box").hidden = false;
  const body = await answer.json().catch(() => ({}));
  throw new Error(typeof body.detail === "string" ? body.detail : `The server answered ${answer.status}.`);
}

function form(fields) {
  const data = new FormData();
  for (const [key, value] of Object.entries(fields)) data.append(key, value);
  data.append("image", state.blob, "image");
  return data;
}

async function connect() {
  try {
    state.offer = await (await ask("v1/models")).json();
  } catch (error) {
    say("bad", "not connected");
    complain(error.message);
    return;
  }
  $("key-box").hidden = true;
  complain("");
  const { models, defaults } = state.offer;
  say("good", models.length === 1 ? "1 model ready" : `${models.length} models ready`);
  fill($("model-a"), models.map((model) => model.name), models[0].name);
  fill($("model-b"), [NONE, ...models.map((model) => model.name)], models.length > 1 ? models[1].name : NONE);
  $("conf").value = Math.max(defaults.conf, LOWEST);
  $("iou").value = defaults.iou;
  showNumbers();
  choosePanels();
}

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name) => new Option(name || "none", name, false, name === chosen)));
}

// ---- one panel for each chosen model

function choosePanels() {
  const names = [...new Set([$("model-a").value, $("model-b").value])].filter(Boolean);
  for (const panel of state.panels) panel.stop?.abort();
  state.panels = names.map((name) => {
    const kept = state.panels.find((panel) => panel.name === name);
    return kept ?? makePanel(state.offer.models.find((model) => model.name === name));
  });
  $("panels").replaceChildren(...state.panels.map((panel) => panel.root));
  detectAll();
}

function makePanel(model) {
  const root = $("panel").content.firstElementChild.cloneNode(true);
  const part = (selector) => root.querySelector(selector);
  const panel = { name: model.name, root, part, answer: null, stop: null };
  panel.colors = new Map(model.classes.map((one) => [one.name, one.color]));
  part("h2").textContent = model.name;
  part(".times").textContent = model.format;
  part(".save").addEventListener("click", () => save(panel));
  return panel;
}

function detectAll() {
  if (state.bitmap) complain("");
  for (const panel of state.panels) panel.root.hidden = !state.bitmap;
  if (state.bitmap) for (const panel of state.panels) detect(panel);
}

async function detect(panel) {
  panel.stop?.abort();
  const stop = (panel.stop = new AbortController());
  panel.root.ariaBusy = "true";
  panel.part(".wait").hidden = false;
  draw(panel);
  try {
    const body = form({ conf: LOWEST, iou: $("iou").value });
    const path = `v1/detect/${encodeURIComponent(panel.name)}`;
    const answer = await (await ask(path, { method: "POST", body, signal: stop.signal })).json();
    if (panel.stop !== stop) return;
    panel.answer = answer;
  } catch (error) {
    if (error.name === "AbortError" || panel.stop !== stop) return;
    panel.answer = null;
    complain(`${panel.name}: ${error.message}`);
  }
  panel.root.ariaBusy = "false";
  panel.part(".wait").hidden = true;
  show();
}

// ---- showing

const confident = (panel) => (panel.answer?.detections ?? []).filter((row) => row.confidence >= Number($("conf").value));
const visible = (panel) => confident(panel).filter((row) => !state.hidden.has(row.name));

function show() {
  showLegend();
  for (const panel of state.panels) {
    const rows = visible(panel);
    panel.part(".count strong").textContent = panel.answer ? rows.length : "";
    panel.part(".count span").textContent = panel.answer ? (rows.length === 1 ? "box" : "boxes") : "";
    panel.part(".times").textContent = panel.answer ? times(panel.answer) : "no result";
    panel.part("tbody").replaceChildren(...rows.map(tableRow));
    draw(panel);
  }
  if (state.panels.every((panel) => panel.root.ariaBusy === "false")) {
    $("news").textContent = state.panels.map((panel) => summary(panel.name, visible(panel))).join("; ");
  }
}

function times({ times_ms: ms, input }) {
  const rest = ms.decode + ms.queue + ms.nms;
  const round = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
  return `${round(ms.inference)} ms inference, ${round(rest)} ms around it, at ${input.width} x ${input.height}`;
}

function tableRow(row) {
  const tr = document.createElement("tr");
  const sides = [row.xmin, row.ymin, row.xmax - row.xmin, row.ymax - row.ymin].map((side) => side.toFixed(0));
  for (const text of [row.name, row.confidence.toFixed(2), ...sides]) tr.insertCell().textContent = text;
  return tr;
}

function draw(panel) {
  const canvas = panel.part("canvas");
  const { bitmap } = state;
  if (!bitmap) return;
  const { width, height } = bitmap;
  canvas.style.aspectRatio = `${width} / ${height}`;
  // Lines and letters are meant in pixels of the screen, whatever the image's own size, and sharp.
  const shown = Math.max(Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height), 1);
  const zoom = Math.min(Math.max((shown * devicePixelRatio) / width, 1), 4);
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.scale(zoom, zoom);
  pen.drawImage(bitmap, 0, 0, width, height);
  const rows = panel.root.ariaBusy === "true" ? [] : visible(panel).reverse(); // the best end up on top
  const color = (row) => panel.colors.get(row.name) ?? "#808080";
  for (const row of rows) drawBox(pen, row, color(row), width / shown);
  for (const row of rows) drawLabel(pen, row, color(row), width / shown, width);
  canvas.setAttribute("aria-label", summary(panel.name, rows));
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
  const words = [...counts(rows)].map(([kind, count]) => `${count} ${kind}`);
  return `${name} found ${words.join(", ") || "nothing"}`;
}

function showLegend() {
  const tallies = state.panels.map((panel) => counts(confident(panel)));
  const total = (name) => tallies.reduce((sum, tally) => sum + (tally.get(name) ?? 0), 0);
  const names = new Set([...tallies.flatMap((tally) => [...tally.keys()]), ...state.hidden]);
  const focused = document.activeElement?.dataset?.name;
  const ordered = [...names].sort((one, other) => total(other) - total(one) || one.localeCompare(other));
  const buttons = ordered.map((name) => legendButton(name, tallies.map((tally) => tally.get(name) ?? 0)));
  $("classes").hidden = buttons.length === 0;
  $("classes").replaceChildren(...buttons);
  buttons.find((button) => button.dataset.name === focused)?.focus();
}

function legendButton(name, numbers) {
  const button = document.createElement("button");
  const [swatch, label, tally] = ["span", "span", "span"].map((tag) => document.createElement(tag));
  swatch.className = "swatch";
  swatch.style.backgroundColor = state.panels.map((panel) => panel.colors.get(name)).find(Boolean) ?? "";
  label.textContent = name;
  tally.className = "numbers";
  tally.textContent = numbers.join(" | ");
  const words = state.panels.map((panel, index) => `${numbers[index]} by ${panel.name}`).join(", ");
  button.type = "button";
  button.dataset.name = name;
  button.title = `${words}; click to show or hide`;
  button.setAttribute("aria-label", `${name}: ${words}`);
  button.setAttribute("aria-pressed", String(!state.hidden.has(name)));
  button.append(swatch, label, tally);
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

function say(kind, text) {
  $("state").className = `state ${kind}`;
  $("state-text").textContent = text;
}

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function save(panel) {
  panel.part("canvas").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${panel.name}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

// ---- images: from a file, from the clipboard, from the camera

async function take(blob, name) {
  const round = ++state.round;
  complain("");
  const limit = state.offer?.limits.upload_mb ?? Infinity;
  if (blob.size > limit * 2 ** 20) {
    complain(`${name} has ${(blob.size / 2 ** 20).toFixed(1)} MB; this server takes up to ${limit} MB.`);
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
    complain(`${name}: ${error.message}`);
    return;
  }
  $("drop").classList.add("full");
  $("image-name").textContent = name;
  const { width, height } = state.bitmap;
  $("image-facts").textContent = `${width} x ${height} pixels, ${Math.max(blob.size / 1024, 1).toFixed(0)} KB`;
  $("choose").textContent = "Choose another";
  for (const panel of state.panels) panel.answer = null;
  detectAll();
}

// The server turns images as their Exif data says, and so does the browser. Kinds that it cannot show
// (TIFF) the server repaints as a JPEG: with a threshold of 1 there are no boxes in it.
async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    const model = state.offer?.models[0];
    if (!model) throw new Error("no image that this browser can show");
    const path = `v1/detect/${encodeURIComponent(model.name)}`;
    const answer = await ask(path, { method: "POST", body: form({ conf: 1, format: "image" }) });
    return createImageBitmap(await answer.blob());
  }
}

function fromList(list) {
  const file = [...(list ?? [])].find((item) => item instanceof File);
  if (file) take(file, file.name || "pasted image");
}

async function cameraOn() {
  complain("");
  if (!navigator.mediaDevices?.getUserMedia) {
    complain("The browser gives the camera to pages from localhost or over https only.");
    return;
  }
  try {
    const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false };
    $("video").srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    complain(error.name === "NotAllowedError" ? "The use of the camera was not allowed." : "No camera was found.");
    return;
  }
  $("shoot").disabled = true; // until there is a frame to take
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

function shoot() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  cameraOff();
  canvas.toBlob((blob) => blob && take(blob, "camera.jpg"), "image/jpeg", 0.95);
}

// ---- what users do

function debounce(work, pause) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, pause);
  };
}

function listen() {
  const drop = document.body;
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    fromList($("file").files);
    $("file").value = ""; // the same file may be chosen again
  });
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  drop.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    fromList(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => fromList(event.clipboardData?.files));
  $("camera").addEventListener("click", cameraOn);
  $("camera-off").addEventListener("click", cameraOff);
  $("shoot").addEventListener("click", shoot);
  $("key-box").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = $("key").value;
    connect();
  });
  for (const id of ["model-a", "model-b"]) $(id).addEventListener("change", choosePanels);
  for (const id of ["conf", "iou"]) $(id).addEventListener("input", showNumbers);
  $("conf").addEventListener("input", show);
  $("iou").addEventListener("input", debounce(detectAll, IOU_PAUSE));
  addEventListener("resize", debounce(() => state.panels.forEach(draw), 100));
}

listen();
connect();
