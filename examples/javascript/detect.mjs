// Find objects in images with an exported model; prints JSON.
//
//     node detect.mjs best.onnx image.jpg [more.png ...] [--conf 0.25] [--iou 0.45] [--img 640]

import { readFile } from 'node:fs/promises'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

import { InferenceSession, Tensor } from 'onnxruntime-node'

import { readRows, suppress, toImage } from './boxes.mjs'
import { parseNames, readMetadata } from './metadata.mjs'
import { letterbox, readImage } from './image.mjs'

const USAGE = 'usage: node detect.mjs MODEL.onnx IMAGE ... [--conf 0.25] [--iou 0.45] [--img 640]'

/** A mistake in the command line. */
class UsageError extends Error {}

/** A model file, ready for images. */
export class Detector {
  /** Open `file`; `side` is the input's size where the file takes any (export.py --dynamic). */
  static async open(file, side = 640) {
    const bytes = await readFile(file)
    const notes = readMetadata(bytes)
    const session = await InferenceSession.create(bytes)
    const [images] = session.inputMetadata
    if (images.type !== 'float32') throw new Error(`${file}: takes ${images.type}; export without --half`)
    const [batch, , height, width] = images.shape
    if (typeof batch === 'number' && batch !== 1) {
      throw new Error(`${file}: takes ${batch} images at a time; export with --batch-size 1 or --dynamic`)
    }
    const stride = Number(notes.stride ?? 32)
    const free = Math.ceil(side / stride) * stride
    const size = [height, width].map((known) => (typeof known === 'number' ? known : free))
    return new Detector(session, size, parseNames(notes.names), notes.nms !== undefined)
  }

  constructor(session, size, names, suppressed) {
    Object.assign(this, { session, size, names, suppressed })
  }

  /** Boxes of an image {data, width, height}: [{name, class, score, box: [x1, y1, x2, y2]}], best first. */
  async detect(image, confidence = 0.25, overlap = 0.45) {
    const [height, width] = this.size
    const input = new Tensor('float32', letterbox(image, height, width), [1, 3, height, width])
    const results = await this.session.run({ [this.session.inputNames[0]]: input })
    const { data, dims } = results[this.session.outputNames[0]]
    const boxes = this.suppressed
      ? readRows(data, dims[1], confidence)
      : suppress(data, dims[1], dims[2], confidence, overlap)
    return toImage(boxes, height, width, image).map((box) => ({
      name: this.names[box.class] ?? String(box.class),
      ...box
    }))
  }
}

/** What the command line says. */
function readOptions(words) {
  const text = (standard) => ({ type: 'string', default: standard })
  let parsed
  try {
    parsed = parseArgs({
      args: words,
      allowPositionals: true,
      options: {
        conf: text('0.25'),
        iou: text('0.45'),
        img: text('640'),
        help: { type: 'boolean', short: 'h' }
      }
    })
  } catch (error) {
    throw new UsageError(error.message)
  }
  const { values, positionals } = parsed
  if (values.help) return { help: true }
  const [model, ...images] = positionals
  if (!images.length) throw new UsageError(USAGE)
  const [conf, iou, img] = [values.conf, values.iou, values.img].map(Number)
  for (const [flag, value] of Object.entries({ conf, iou })) {
    if (!(value >= 0 && value <= 1)) {
      throw new UsageError(`--${flag} ${values[flag]}: a number from 0 to 1 is needed`)
    }
  }
  if (!(Number.isInteger(img) && img > 0)) {
    throw new UsageError(`--img ${values.img}: a number of pixels is needed`)
  }
  return { model, images, conf, iou, img }
}

async function main() {
  const options = readOptions(process.argv.slice(2))
  if (options.help) return console.log(USAGE)
  const detector = await Detector.open(options.model, options.img)
  const found = []
  for (const file of options.images) {
    const boxes = await detector.detect(await readImage(file), options.conf, options.iou)
    found.push({ file, boxes })
  }
  // A ten-thousandth of a pixel is more than a model knows.
  console.log(JSON.stringify(found, (_, value) => (typeof value === 'number' ? +value.toFixed(4) : value), 2))
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    await main()
  } catch (error) {
    console.error(`detect.mjs: ${error.message.replace(/\s+/g, ' ').trim()}`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  }
}
