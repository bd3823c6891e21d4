// A small copy of an image, on which a pipeline is tried before the image is sent.

const MOST_BYTES = 120_000;
const SIDES = [640, 512, 400, 320, 240, 160];

/** `{blob, width, height, fullWidth, fullHeight}`; null for a file that this browser cannot read. */
export async function smallCopy(source) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source);
  } catch {
    return null;
  }
  const { width: fullWidth, height: fullHeight } = bitmap;
  try {
    for (const side of SIDES) {
      const factor = Math.min(1, side / Math.max(fullWidth, fullHeight));
      const width = Math.max(1, Math.round(fullWidth * factor));
      const height = Math.max(1, Math.round(fullHeight * factor));
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
      // PNG keeps edges; a photograph is too large for it and becomes a JPEG.
      for (const [type, quality] of [["image/png"], ["image/jpeg", 0.92]]) {
        const blob = await new Promise((done) => canvas.toBlob(done, type, quality));
        if (blob && blob.size <= MOST_BYTES) return { blob, width, height, fullWidth, fullHeight };
      }
    }
    return null;
  } finally {
    bitmap.close();
  }
}
