// From the output of the network to boxes in the image.

const MAX_DET = 1000 // per image, as in detect.py

/** Class-wise NMS on decoded rows (N, xywh + objectness + class scores): [{class, score, box: xyxy}], by score. */
export function nonMaxSuppression(rows, count, width, confThreshold, iouThreshold) {
  const candidates = []
  for (let at = 0; at < count * width; at += width) {
    const objectness = rows[at + 4]
    if (!(objectness > confThreshold)) continue
    let best = 5
    for (let i = 6; i < width; i++) if (rows[at + i] > rows[at + best]) best = i
    const score = Math.fround(rows[at + best] * objectness)
    if (!(score > confThreshold)) continue
    const [x, y, w, h] = rows.subarray(at, at + 4)
    candidates.push({ class: best - 5, score, box: [x - w / 2, y - h / 2, x + w / 2, y + h / 2] })
  }
  candidates.sort((a, b) => b.score - a.score)
  const kept = []
  for (const candidate of candidates) {
    if (kept.length === MAX_DET) break
    const overlaps = (other) => other.class === candidate.class && iou(other.box, candidate.box) > iouThreshold
    if (!kept.some(overlaps)) kept.push(candidate)
  }
  return kept
}

/** Boxes of a model with built-in NMS, rows (K, 6): xyxy, score, class; unused rows are zero. */
export function readRows(rows, count, confThreshold) {
  const boxes = []
  for (let at = 0; at < count * 6; at += 6) {
    if (rows[at + 4] > confThreshold) {
      boxes.push({ class: rows[at + 5], score: rows[at + 4], box: [...rows.subarray(at, at + 4)] })
    }
  }
  return boxes
}

/** Scale boxes from the letterboxed input (height, width) to the original image, and clip them to it. */
export function scaleBoxes(boxes, height, width, image) {
  const gain = Math.min(height / image.height, width / image.width)
  const left = (width - image.width * gain) / 2
  const top = (height - image.height * gain) / 2
  const clip = (value, limit) => Math.min(Math.max(value, 0), limit)
  return boxes.map(({ box: [x1, y1, x2, y2], ...rest }) => ({
    ...rest,
    box: [
      clip((x1 - left) / gain, image.width),
      clip((y1 - top) / gain, image.height),
      clip((x2 - left) / gain, image.width),
      clip((y2 - top) / gain, image.height)
    ]
  }))
}

function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0])
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1])
  if (width <= 0 || height <= 0) return 0
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1])
  return (width * height) / (area(a) + area(b) - width * height)
}
