// What an .onnx file says of itself: ONNX Runtime for Node.js reads the graph, but not these notes.

const METADATA = 14 // field of ModelProto: repeated { key = 1, value = 2 }
const ESCAPES = { n: '\n', t: '\t', r: '\r' }
const TEXT = 2 // wire type of everything that has a length

/** Notes of a model file (Buffer) as {key: text}. */
export function readMetadata(bytes) {
  const notes = {}
  for (const [field, content] of fields(bytes)) {
    if (field !== METADATA) continue
    const entry = new Map(fields(content))
    notes[String(entry.get(1) ?? '')] = String(entry.get(2) ?? '')
  }
  return notes
}

/** Class names by number, from "{0: 'cell', 1: 'red plate'}" or "['cell', 'red plate']". */
export function parseNames(text = '') {
  const entries = /(?:(\d+)\s*:\s*)?(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")/g
  const names = []
  for (const [, number, single, double] of text.matchAll(entries)) {
    const name = (single ?? double).replace(/\\(.)/g, (_, letter) => ESCAPES[letter] ?? letter)
    names[number === undefined ? names.length : Number(number)] = name
  }
  return names
}

/** [field number, content] of each field that has a length, in a protobuf message. */
function* fields(bytes) {
  let at = 0
  const number = () => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error('not an ONNX file, or cut off')
      const byte = bytes[at++]
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = number()
    const type = tag % 8
    if (type === TEXT) {
      const length = number()
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)]
      at += length
    } else if (type === 0) number()
    else if (type === 1 || type === 5) at += type === 1 ? 8 : 4
    else throw new Error('not an ONNX file, or cut off')
  }
}
