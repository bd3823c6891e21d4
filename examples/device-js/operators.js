// Operators on raw pixels. Each gets an array of values and its parameters, and returns an array.

const ARRAYS = { uint8: Uint8Array, uint16: Uint16Array };
const WHITE = { uint8: 255, uint16: 65535 };

export const DTYPES = Object.keys(ARRAYS);

export const OPERATORS = {
  invert: (values, dtype) => values.map((value) => WHITE[dtype] - value),

  threshold(values, dtype, { value: limit, max, inverse }) {
    if (!Number.isInteger(max) || max < 0 || max > WHITE[dtype]) {
      throw new Error(`threshold: max is ${max}, expected a whole number from 0 to ${WHITE[dtype]}`);
    }
    const [over, other] = inverse ? [0, max] : [max, 0];
    return values.map((value) => (value > limit ? over : other));
  },
};

/** Runs the operators of a tile on its core; returns the fields of a result. Throws an Error. */
export function run(tile) {
  const { dtype, stage, codec = "raw", result_codec: wanted = "raw" } = tile;
  if (codec !== "raw" || wanted === "bitplanes" || wanted === "facts") {
    throw new Error(`this device does not do the codecs ${codec} and ${wanted}`);
  }
  if (!DTYPES.includes(dtype)) throw new Error(`this device does not do ${dtype}`);
  let values = cut(tile, ARRAYS[dtype]);
  for (const { name, params } of stage) {
    if (!Object.hasOwn(OPERATORS, name)) throw new Error(`this device has no operator ${name}`);
    values = OPERATORS[name](values, dtype, params ?? {});
  }
  const [, , height, width] = tile.core;
  const pixels = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { shape: [height, width, tile.shape[2]], dtype, codec: "raw", pixels };
}

/** The values of the core, row by row, as an array of the tile's dtype. */
function cut({ shape, core, dtype, pixels }, Values) {
  const [height, width, channels] = shape;
  const [top, left, rows, columns] = core;
  const bytes = Values.BYTES_PER_ELEMENT;
  if (pixels.length !== height * width * channels * bytes) {
    throw new Error(`${pixels.length} bytes of pixels, but ${shape} ${dtype} needs others`);
  }
  if (top + rows > height || left + columns > width) throw new Error(`core ${core} is outside`);
  const row = columns * channels * bytes;
  const found = new Uint8Array(rows * row);
  for (let y = 0; y < rows; y++) {
    const start = ((top + y) * width + left) * channels * bytes;
    found.set(pixels.subarray(start, start + row), y * row);
  }
  return new Values(found.buffer); // little-endian, as JavaScript's arrays are on all common boards
}
