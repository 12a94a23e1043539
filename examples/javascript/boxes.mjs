// From the network's output to the boxes of an image.

const MOST = 1000 // boxes of an image, as in detect.py

/** Confident boxes of decoded rows (N, xywh + objectness + scores); of those that overlap, the best. */
export function suppress(rows, count, width, confidence, overlap) {
  const candidates = []
  for (let at = 0; at < count * width; at += width) {
    const objectness = rows[at + 4]
    if (!(objectness > confidence)) continue
    let best = 5
    for (let i = 6; i < width; i++) if (rows[at + i] > rows[at + best]) best = i
    const score = Math.fround(rows[at + best] * objectness)
    if (!(score > confidence)) continue
    const [x, y, w, h] = rows.subarray(at, at + 4)
    candidates.push({ class: best - 5, score, box: [x - w / 2, y - h / 2, x + w / 2, y + h / 2] })
  }
  candidates.sort((a, b) => b.score - a.score)
  const kept = []
  for (const one of candidates) {
    if (kept.length === MOST) break
    const covers = (better) => better.class === one.class && iou(better.box, one.box) > overlap
    if (!kept.some(covers)) kept.push(one)
  }
  return kept
}

/** Boxes of a model that suppresses by itself: rows (K, 6: xyxy, score, class), zeros behind the last one. */
export function readRows(rows, count, confidence) {
  const boxes = []
  for (let at = 0; at < count * 6; at += 6) {
    if (rows[at + 4] > confidence) {
      boxes.push({ class: rows[at + 5], score: rows[at + 4], box: [...rows.subarray(at, at + 4)] })
    }
  }
  return boxes
}

/** Carry boxes from the input (height, width) back to the image that was fitted into it. */
export function toImage(boxes, height, width, image) {
  const gain = Math.min(height / image.height, width / image.width)
  const left = (width - image.width * gain) / 2
  const top = (height - image.height * gain) / 2
  const within = (value, most) => Math.min(Math.max(value, 0), most)
  return boxes.map(({ box: [x1, y1, x2, y2], ...rest }) => ({
    ...rest,
    box: [
      within((x1 - left) / gain, image.width),
      within((y1 - top) / gain, image.height),
      within((x2 - left) / gain, image.width),
      within((y2 - top) / gain, image.height)
    ]
  }))
}

function iou(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0])
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1])
  if (wide <= 0 || high <= 0) return 0
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1])
  return (wide * high) / (area(a) + area(b) - wide * high)
}
