// Metadata of an .onnx file, which ONNX Runtime for Node.js does not expose.

const METADATA = 14 // field of ModelProto: repeated { key = 1, value = 2 }
const ESCAPES = { n: '\n', t: '\t', r: '\r' }
const LENGTH_DELIMITED = 2 // wire type of strings, bytes and messages

/** Read the metadata of a model file (Buffer) as {key: text}. */
export function readMetadata(bytes) {
  const metadata = {}
  for (const [field, content] of fields(bytes)) {
    if (field !== METADATA) continue
    const entry = new Map(fields(content))
    metadata[String(entry.get(1) ?? '')] = String(entry.get(2) ?? '')
  }
  return metadata
}

/** Parse class names by number, from "{0: 'cell', 1: 'red plate'}" or "['cell', 'red plate']". */
export function parseNames(text = '') {
  const entries = /(?:(\d+)\s*:\s*)?(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")/g
  const names = []
  for (const [, number, single, double] of text.matchAll(entries)) {
    const name = (single ?? double).replace(/\\(.)/g, (_, letter) => ESCAPES[letter] ?? letter)
    names[number === undefined ? names.length : Number(number)] = name
  }
  return names
}

/** Yield [field number, content] of each length-delimited field of a protobuf message. */
function* fields(bytes) {
  let at = 0
  const varint = () => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length) throw new Error('not an ONNX file, or cut off')
      const byte = bytes[at++]
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = varint()
    const type = tag % 8
    if (type === LENGTH_DELIMITED) {
      const length = varint()
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)]
      at += length
    } else if (type === 0) varint()
    else if (type === 1 || type === 5) at += type === 1 ? 8 : 4
    else throw new Error('not an ONNX file, or cut off')
  }
}
