// From an image file to the input of the network, bit-identical to that of detect.py, which uses OpenCV.

import sharp from 'sharp'

const GRAY = 114
const ONE = 2048 // OpenCV's interpolation weights are integers, in units of 1 / 2048

/** Decode a file, rotated upright: {data, width, height} with RGB bytes, row by row. */
export async function readImage(file) {
  // detect.py ignores colour profiles, too.
  const image = sharp(file, { ignoreIcc: true, autoOrient: true }).toColourspace('srgb')
  try {
    const { data, info } = await image.removeAlpha().raw().toBuffer({ resolveWithObject: true })
    return { data, width: info.width, height: info.height }
  } catch (error) {
    throw new Error(`${file}: ${error.message}`)
  }
}

/** Letterbox an image to (height, width): Float32Array (3, height, width), RGB from 0 to 1. */
export function letterbox(image, height, width) {
  const ratio = Math.min(height / image.height, width / image.width)
  const inner = {
    width: Math.max(roundEven(image.width * ratio), 1),
    height: Math.max(roundEven(image.height * ratio), 1)
  }
  const pixels = resize(image, inner.width, inner.height)
  const left = roundEven((width - inner.width) / 2 - 0.1)
  const top = roundEven((height - inner.height) / 2 - 0.1)
  const plane = height * width
  const input = new Float32Array(3 * plane).fill(GRAY / 255)
  for (let y = 0; y < inner.height; y++) {
    for (let x = 0; x < inner.width; x++) {
      const from = 3 * (y * inner.width + x)
      const to = (top + y) * width + left + x
      for (let c = 0; c < 3; c++) input[c * plane + to] = pixels[from + c] / 255
    }
  }
  return input
}

/** Resize RGB bytes bilinearly, with the integer arithmetic of OpenCV's INTER_LINEAR. */
export function resize(image, width, height) {
  const { data, width: oldWidth, height: oldHeight } = image
  if (width === oldWidth && height === oldHeight) return data
  const columns = taps(oldWidth, width)
  const rows = taps(oldHeight, height)
  const stretched = new Map() // rows at the new width, in units of 1 / ONE; two are in use at a time
  const stretch = (y) => {
    if (stretched.has(y)) return stretched.get(y)
    for (const old of stretched.keys()) if (old < y - 1) stretched.delete(old)
    const row = new Int32Array(3 * width)
    columns.forEach(({ near, far, weights }, x) => {
      for (let c = 0; c < 3; c++) {
        const [a, b] = [data[3 * (y * oldWidth + near) + c], data[3 * (y * oldWidth + far) + c]]
        row[3 * x + c] = a * weights[0] + b * weights[1]
      }
    })
    stretched.set(y, row)
    return row
  }
  const result = new Uint8Array(3 * width * height)
  rows.forEach(({ near, far, weights }, y) => {
    const [above, below] = [stretch(near), stretch(far)]
    for (let i = 0; i < 3 * width; i++) {
      const sum = ((weights[0] * (above[i] >> 4)) >> 16) + ((weights[1] * (below[i] >> 4)) >> 16)
      result[y * 3 * width + i] = (sum + 2) >> 2
    }
  })
  return result
}

/** For each new pixel along a side: the two old pixels around it, and their weights. */
function taps(oldSize, newSize) {
  return Array.from({ length: newSize }, (_, i) => {
    const position = Math.fround((i + 0.5) * (oldSize / newSize) - 0.5)
    const low = Math.floor(position)
    const fraction = Math.fround(position - low)
    const weights = [roundEven(Math.fround(1 - fraction) * ONE), roundEven(fraction * ONE)]
    const clip = (index) => Math.min(Math.max(index, 0), oldSize - 1)
    return { near: clip(low), far: clip(low + 1), weights }
  })
}

/** Round to the nearest integer, halves to the even one, as Python and OpenCV do. */
export function roundEven(value) {
  const low = Math.floor(value)
  if (value - low !== 0.5) return Math.round(value)
  return low % 2 === 0 ? low : low + 1
}
