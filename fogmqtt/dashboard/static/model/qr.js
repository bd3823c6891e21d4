// QR codes as the path of an SVG.

/** The path of the dark squares; `rows` are texts of 0 and 1. */
export function qrPath(rows) {
  return rows
    .flatMap((row, y) => [...row.matchAll(/1+/g)].map((run) => `M${run.index} ${y}h${run[0].length}v1h-${run[0].length}z`))
    .join("");
}
