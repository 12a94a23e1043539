// Shows what two models find in one image: boxes and masks, or classes. Data from the server is inserted as text,
// never as markup.
import { listenToCamera } from "./page-camera.js";
import { dimBorders, drawBoxes, drawImage } from "./page-draw.js";

const MIN_CONFIDENCE = 0.05; // of requests, so that the slider can filter without a new request
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

// ---- the two kinds of models

const BOXES = {
  unused: ".classes", // the part of a panel that the other kind has
  list: "tbody",
  item: tableRow,
  fields: () => ({ conf: MIN_CONFIDENCE, iou: $("iou").value }), // of requests
  rows: (panel) => confident(panel).filter((row) => !state.hidden.has(row.name)),
  count: (rows) => [rows.length, rows.length === 1 ? "box" : "boxes"],
  words: (rows) => [...counts(rows)].map(([label, count]) => `${count} ${label}`),
  draw: (panel, rows, pen, unit, bitmap) => {
    const color = (row) => panel.colors.get(row.name) ?? "#808080";
    drawBoxes(pen, [...rows].reverse(), color, unit, bitmap.width); // the most confident on top
  },
  image: (panel) => new Promise((done) => panel.find("canvas").toBlob(done)), // to save
};

const CLASSES = {
  unused: ".boxes",
  list: ".bars",
  item: bar,
  fields: () => ({}),
  rows: (panel) => panel.result?.classifications ?? [],
  count: ([best]) => [best.confidence.toFixed(2), best.name],
  words: (rows) => rows.map((row) => `${row.name} ${row.confidence.toFixed(2)}`),
  draw: (panel, rows, pen, unit, bitmap) => dimBorders(pen, bitmap),
  image: async ({ path }) => (await request(path, { method: "POST", body: form({ format: "image" }) })).blob(),
};

// ---- a panel per selected model

function choosePanels() {
  const names = [...new Set([$("model-a").value, $("model-b").value])].filter(Boolean);
  for (const panel of state.panels) panel.abort?.abort();
  state.panels = names.map((name) => {
    const kept = state.panels.find((panel) => panel.name === name);
    return kept ?? makePanel(state.info.models.find((model) => model.name === name));
  });
  $("panels").replaceChildren(...state.panels.map((panel) => panel.root));
  for (const part of document.querySelectorAll(".about-boxes")) part.hidden = withBoxes().length === 0;
  runAll();
}

function makePanel(model) {
  const root = $("panel").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  const view = model.task === "classify" ? CLASSES : BOXES;
  const panel = { name: model.name, path: model.path, view, root, find, result: null, abort: null };
  panel.colors = new Map(model.classes.map(({ name, color }) => [name, color]));
  find(view.unused).remove();
  find("h2").textContent = model.name;
  find(".times").textContent = model.format;
  find(".save").addEventListener("click", () => save(panel));
  return panel;
}

const withBoxes = () => state.panels.filter((panel) => panel.view === BOXES);

function runAll(panels = state.panels) {
  if (state.bitmap) showError("");
  for (const panel of state.panels) panel.root.hidden = !state.bitmap;
  if (state.bitmap) for (const panel of panels) run(panel);
}

async function run(panel) {
  panel.abort?.abort();
  const abort = (panel.abort = new AbortController());
  panel.root.ariaBusy = "true";
  panel.find(".wait").hidden = false;
  draw(panel);
  try {
    const body = form(panel.view.fields());
    const response = await request(panel.path, { method: "POST", body, signal: abort.signal });
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

function show() {
  showLegend();
  for (const panel of state.panels) {
    const rows = panel.view.rows(panel);
    const [count, unit] = panel.result ? panel.view.count(rows) : ["", ""];
    panel.find(".count strong").textContent = count;
    panel.find(".count span").textContent = unit;
    panel.find(".times").textContent = panel.result ? times(panel.result) : "no result";
    panel.find(panel.view.list).replaceChildren(...rows.map((row) => panel.view.item(row, panel)));
    draw(panel);
  }
  if (state.panels.every((panel) => panel.root.ariaBusy === "false")) {
    $("news").textContent = state.panels.map((panel) => summary(panel, panel.view.rows(panel))).join("; ");
  }
}

function times({ times_ms: ms, input }) {
  const names = { decode: "decoding", queue: "queue", nms: "NMS", masks: "masks" };
  const stages = Object.keys(names).filter((stage) => stage in ms);
  const rest = stages.reduce((sum, stage) => sum + ms[stage], 0);
  const words = stages.map((stage) => names[stage]);
  const listed = `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
  const round = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
  return `${round(ms.inference)} ms inference, ${round(rest)} ms ${listed}, at ${input.width} x ${input.height}`;
}

function tableRow(row) {
  const tr = document.createElement("tr");
  const sides = [row.xmin, row.ymin, row.xmax - row.xmin, row.ymax - row.ymin].map((side) => side.toFixed(0));
  for (const text of [row.name, row.confidence.toFixed(2), ...sides]) tr.insertCell().textContent = text;
  return tr;
}

function bar(row, panel) {
  const item = document.createElement("li");
  const [name, track, fill, value] = ["span", "span", "span", "span"].map((tag) => document.createElement(tag));
  name.className = "name";
  name.textContent = row.name;
  track.className = "track";
  track.append(fill);
  fill.style.width = `${100 * row.confidence}%`;
  fill.style.backgroundColor = panel.colors.get(row.name) ?? "";
  value.textContent = row.confidence.toFixed(3);
  item.append(name, value, track);
  return item;
}

function draw(panel) {
  if (!state.bitmap) return;
  const canvas = panel.find("canvas");
  const rows = panel.root.ariaBusy === "true" ? [] : panel.view.rows(panel);
  drawImage(canvas, state.bitmap, (...paper) => panel.view.draw(panel, rows, ...paper));
  canvas.setAttribute("aria-label", summary(panel, rows));
}

function counts(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.name, (found.get(row.name) ?? 0) + 1);
  return found;
}

function summary(panel, rows) {
  return `${panel.name} found ${panel.view.words(rows).join(", ") || "nothing"}`;
}

function showLegend() {
  const perPanel = withBoxes().map((panel) => counts(confident(panel)));
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
  swatch.style.backgroundColor = withBoxes().map((panel) => panel.colors.get(name)).find(Boolean) ?? "";
  label.textContent = name;
  count.className = "numbers";
  count.textContent = numbers.join(" | ");
  const words = withBoxes().map((panel, index) => `${numbers[index]} by ${panel.name}`).join(", ");
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

async function save(panel) {
  try {
    const blob = await panel.view.image(panel);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${panel.name}.${blob.type.split("/")[1]}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    showError(`${panel.name}: ${error.message}`);
  }
}

// ---- images: from a file or from the clipboard

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
  runAll();
}

// Server and browser both rotate images according to their Exif data. Formats that the browser cannot show
// (TIFF) are converted by the server to a JPEG.
async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    const model = state.info?.models[0];
    if (!model) throw new Error("not an image that this browser can show");
    const response = await request(model.path, { method: "POST", body: form({ format: "plain" }) });
    return createImageBitmap(await response.blob());
  }
}

function fromList(list) {
  const file = [...(list ?? [])].find((item) => item instanceof File);
  if (file) loadImage(file, file.name || "pasted image");
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
  listenToCamera((photo) => loadImage(photo, "camera.jpg"), showError);
  $("key-box").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = $("key").value;
    connect();
  });
  for (const id of ["model-a", "model-b"]) $(id).addEventListener("change", choosePanels);
  for (const id of ["conf", "iou"]) $(id).addEventListener("input", showNumbers);
  $("conf").addEventListener("input", show);
  $("iou").addEventListener("input", debounce(() => runAll(withBoxes()), IOU_DELAY));
  addEventListener("resize", debounce(() => state.panels.forEach(draw), 100));
}

listen();
connect();
