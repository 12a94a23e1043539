// Draws an image and what was found in it on a canvas, with lines and fonts in pixels of the screen.

const MASK_OPACITY = 0.5;
const DIMMED = "rgb(0 0 0 / 55%)";

// Calls `add(pen, unit, bitmap)`; `unit` is the size of a pixel of the screen in pixels of the image.
export function drawImage(canvas, bitmap, add) {
  const { width, height } = bitmap;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const shown = Math.max(Math.min(canvas.clientWidth, (canvas.clientHeight * width) / height), 1);
  const zoom = Math.min(Math.max((shown * devicePixelRatio) / width, 1), 4);
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.scale(zoom, zoom);
  pen.drawImage(bitmap, 0, 0, width, height);
  add(pen, width / shown, bitmap);
}

// Draws rows with boxes, the last one on top; `color` returns the colour of a row.
export function drawBoxes(pen, rows, color, unit, right) {
  for (const row of rows) drawMask(pen, row, color(row));
  for (const row of rows) drawBox(pen, row, color(row), unit);
  for (const row of rows) drawLabel(pen, row, color(row), unit, right);
}

// Darkens what a classifier does not see: all but the central square.
export function dimBorders(pen, { width, height }) {
  const side = Math.min(width, height);
  const [left, top] = [Math.floor((width - side) / 2), Math.floor((height - side) / 2)];
  const path = new Path2D();
  path.rect(0, 0, width, height);
  path.rect(left, top, side, side);
  pen.fillStyle = DIMMED;
  pen.fill(path, "evenodd");
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

function drawBox(pen, row, color, unit) {
  pen.lineWidth = 2 * unit;
  pen.strokeStyle = color;
  pen.strokeRect(row.xmin, row.ymin, row.xmax - row.xmin, row.ymax - row.ymin);
}

function drawLabel(pen, row, color, unit, right) {
  const text = `${row.name} ${row.confidence.toFixed(2)}`;
  pen.font = `600 ${12 * unit}px system-ui, sans-serif`;
  const tab = { width: pen.measureText(text).width + 8 * unit, height: 17 * unit };
  const left = Math.max(Math.min(row.xmin - unit, right - tab.width), 0);
  const top = row.ymin >= tab.height ? row.ymin - tab.height : row.ymin;
  pen.fillStyle = color;
  pen.fillRect(left, top, tab.width, tab.height);
  pen.fillStyle = isLight(color) ? "#000" : "#fff";
  pen.textBaseline = "middle";
  pen.fillText(text, left + 4 * unit, top + tab.height / 2);
}

function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;
}
