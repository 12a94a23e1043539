// Detect objects in images with an exported model; prints JSON.
//
//     node detect.mjs best.onnx image.jpg [more.png ...] [--conf 0.25] [--iou 0.45] [--img 640]

import { readFile } from 'node:fs/promises'
import process from 'node:process'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

import { InferenceSession, Tensor } from 'onnxruntime-node'

import { nonMaxSuppression, readRows, scaleBoxes } from './boxes.mjs'
import { parseNames, readMetadata } from './metadata.mjs'
import { letterbox, readImage } from './image.mjs'

const USAGE = 'usage: node detect.mjs MODEL.onnx IMAGE ... [--conf 0.25] [--iou 0.45] [--img 640]'

/** An invalid command line. */
class UsageError extends Error {}

/** A loaded ONNX model. */
export class Detector {
  /** Load `file`; `imgsz` is the input size of models with a dynamic one (export.py --dynamic). */
  static async open(file, imgsz = 640) {
    const bytes = await readFile(file)
    const metadata = readMetadata(bytes)
    const session = await InferenceSession.create(bytes)
    const [input] = session.inputMetadata
    if (input.type !== 'float32') throw new Error(`${file}: input is ${input.type}; export without --half`)
    const [batch, , height, width] = input.shape
    if (typeof batch === 'number' && batch !== 1) {
      throw new Error(`${file}: batch size is ${batch}; export with --batch-size 1 or --dynamic`)
    }
    const stride = Number(metadata.stride ?? 32)
    const dynamic = Math.ceil(imgsz / stride) * stride
    const size = [height, width].map((known) => (typeof known === 'number' ? known : dynamic))
    return new Detector(session, size, parseNames(metadata.names), metadata.nms !== undefined)
  }

  constructor(session, size, names, hasNms) {
    Object.assign(this, { session, size, names, hasNms })
  }

  /** Detect objects in an image {data, width, height}: [{name, class, score, box: [x1, y1, x2, y2]}], by score. */
  async detect(image, confThreshold = 0.25, iouThreshold = 0.45) {
    const [height, width] = this.size
    const input = new Tensor('float32', letterbox(image, height, width), [1, 3, height, width])
    const results = await this.session.run({ [this.session.inputNames[0]]: input })
    const { data, dims } = results[this.session.outputNames[0]]
    const boxes = this.hasNms
      ? readRows(data, dims[1], confThreshold)
      : nonMaxSuppression(data, dims[1], dims[2], confThreshold, iouThreshold)
    return scaleBoxes(boxes, height, width, image).map((box) => ({
      name: this.names[box.class] ?? String(box.class),
      ...box
    }))
  }
}

/** Parse the command line. */
function parseOptions(args) {
  const text = (value) => ({ type: 'string', default: value })
  let parsed
  try {
    parsed = parseArgs({
      args,
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
      throw new UsageError(`--${flag} ${values[flag]}: expected a number from 0 to 1`)
    }
  }
  if (!(Number.isInteger(img) && img > 0)) {
    throw new UsageError(`--img ${values.img}: expected a number of pixels`)
  }
  return { model, images, conf, iou, img }
}

async function main() {
  const options = parseOptions(process.argv.slice(2))
  if (options.help) return console.log(USAGE)
  const detector = await Detector.open(options.model, options.img)
  const found = []
  for (const file of options.images) {
    const boxes = await detector.detect(await readImage(file), options.conf, options.iou)
    found.push({ file, boxes })
  }
  // Four decimals are more precise than any model.
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
