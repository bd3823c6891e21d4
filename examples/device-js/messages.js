// Messages: MessagePack or JSON with base64, and the digest over header and pixels.

import { decode as unpack, encode as pack } from "@msgpack/msgpack";
import { createXXHash3 } from "hash-wasm";

const VERSION = 1;
const xxh3 = await createXXHash3();

/** A message in one of the two encodings: { message, json }. Throws an Error if it is none. */
export function decode(payload) {
  const json = payload[0] === 0x7b; // "{"
  const message = json ? JSON.parse(payload.toString("utf8")) : unpack(payload);
  if ((message.v ?? VERSION) !== VERSION) {
    throw new Error(`protocol version ${message.v}, this device has version ${VERSION}`);
  }
  if (json && typeof message.pixels === "string") {
    message.pixels = Buffer.from(message.pixels, "base64");
  }
  return { message, json };
}

/** The bytes of a message, whose `pixels` are a Uint8Array. */
export function encode(message, json) {
  if (!json) return Buffer.from(pack(message));
  const { pixels, ...header } = message;
  if (pixels) header.pixels = Buffer.from(pixels).toString("base64");
  return Buffer.from(JSON.stringify(header));
}

/** The digest of a result, as 16 hexadecimal digits. */
export function resultDigest(result) {
  return digest([...tileOf(result), ...result.shape, result.dtype, result.codec], result.pixels);
}

/** Throws an Error if a tile does not match its digest. */
export function checkTileDigest(tile) {
  const stage = stageText(tile.stage);
  if (stage === null) return;
  const pixels = [...tile.shape, tile.dtype, tile.codec ?? "raw", ...tile.core];
  const rest = [tile.seams ?? "", tile.result_codec ?? "raw", stage];
  if (digest([...tileOf(tile), ...pixels, ...rest], tile.pixels) !== tile.digest) {
    throw new Error("the digest does not match");
  }
}

function tileOf({ job, tile, attempt }) {
  return [job, tile, attempt];
}

function digest(header, pixels) {
  return xxh3.init().update(header.join("/")).update(pixels).digest("hex");
}

/** A stage as it is digested; null if it has a number, since JavaScript has no 50.0. */
function stageText(stage) {
  let hasNumber = false;
  const sorted = (_key, value) => {
    if (typeof value === "number") hasNumber = true;
    if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
  };
  const text = JSON.stringify(stage, sorted);
  return hasNumber ? null : text;
}
