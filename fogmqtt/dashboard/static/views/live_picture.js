// The picture of a running job, which fills in tile by tile.
//
// Two canvases lie upon each other. The lower one has the original, faint, and the results of
// finished tiles, which are asked for by area, one request at a time: a slow connection asks less
// often. The upper one has a tint for each tile. Only tiles that changed are drawn, once for each
// frame of the screen.

import { jobUrl } from "../model/api.js";
import { colour } from "../model/colours.js";
import { CUTTING, DONE, RUNNING, SENT, SPLIT } from "../model/tiles.js";

const MAX_SIDE = 1600;
const FADE_MS = 500;
/** More tiles than this are not faded: nobody sees it, and it costs. */
const MOST_FADING = 300;
/** A failed request for pixels is tried again after so long. */
const AGAIN_MS = 700;

export class LivePicture {
  /** `box` is the element that the canvases fill. */
  constructor(box, fleet, job) {
    this._fleet = fleet;
    this._job = job;
    this._base = layer(box);
    this._tints = layer(box);
    this._fading = new Map();
    this._wanted = new Set();
    this._still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    /** Whether finished tiles keep the colour of their device. */
    this.keepTints = false;
    /** Frames, tiles of all frames, and tiles whose pixels were pasted, for whoever measures. */
    this.frames = 0;
    this.drawn = 0;
    this.pasted = 0;
    this._unlisten = fleet.listen(({ tiles }) => {
      if (tiles.some((update) => update.job === job)) this._schedule();
    });
    this._resizer = new ResizeObserver(() => this.redraw());
    this._resizer.observe(box);
    this._schedule();
  }

  close() {
    this._closed = true;
    this._unlisten();
    this._resizer.disconnect();
    cancelAnimationFrame(this._frame);
    clearTimeout(this._retry);
    this._base.canvas.remove();
    this._tints.canvas.remove();
    this._original?.close();
  }

  redraw() {
    this._map = undefined;
    this._schedule();
  }

  /** The tile at a place of the element in CSS pixels; -1 if there is none. */
  tileAt(x, y) {
    const map = this._map;
    if (!map) return -1;
    const { clientWidth, clientHeight } = this._tints.canvas;
    return map.at((y / clientHeight) * map.height, (x / clientWidth) * map.width);
  }

  _schedule() {
    if (this._frame || this._closed) return;
    this._frame = requestAnimationFrame((at) => {
      this._frame = 0;
      this._draw(at);
    });
  }

  _draw(at) {
    const map = this._fleet.tiles(this._job);
    if (!map?.width) return;
    let changed;
    if (map !== this._map || map.plan !== this._plan) {
      this._begin(map);
      map.takeChanged();
      changed = Array.from({ length: map.count }, (_, tile) => tile);
      map.takeFinished();
      changed.forEach((tile) => map.status[tile] === DONE && this._wanted.add(tile));
    } else {
      changed = map.takeChanged();
      for (const tile of map.takeFinished()) {
        this._wanted.add(tile);
        if (!this._still && this._fading.size < MOST_FADING) this._fading.set(tile, at);
      }
    }
    // What a tile was split from is cleared before its halves are drawn.
    for (const tile of changed) if (map.status[tile] === SPLIT) this._tint(map, tile, at);
    for (const tile of changed) if (map.status[tile] !== SPLIT) this._tint(map, tile, at);
    for (const [tile, begun] of this._fading) {
      if (at - begun > FADE_MS) this._fading.delete(tile);
      this._tint(map, tile, at);
    }
    this.frames++;
    this.drawn += changed.length;
    if (this._fading.size) this._schedule();
    this._pump();
  }

  /** Another stage or size: everything is drawn anew. */
  _begin(map) {
    const another = this._map !== undefined && this._plan !== map.plan;
    this._map = map;
    this._plan = map.plan;
    this._wanted.clear();
    this._fading.clear();
    clearTimeout(this._retry); // it wants tiles of the plan before
    this._noPixels = false;
    const { canvas } = this._base;
    const [width, height] = deviceSize(canvas);
    const before = another && canvas.width > 1 ? copyOf(canvas) : null;
    for (const { canvas: one } of [this._base, this._tints]) {
      one.width = width;
      one.height = height;
    }
    this._scale = width / map.width;
    // A later stage begins with what the one before made.
    if (before) this._faint(before);
    else this._loadOriginal();
  }

  async _loadOriginal() {
    const plan = this._plan;
    if (!this._original) {
      const side = Math.min(MAX_SIDE, Math.max(this._base.canvas.width, this._base.canvas.height, 16));
      const query = { of: "original", max_side: side, format: "jpeg" };
      const picture = await this._picture(query);
      if (!picture?.bitmap) return; // the results are shown all the same
      if (this._closed) return picture.bitmap.close();
      this._original = picture.bitmap;
    }
    const map = this._map;
    if (!map || plan !== this._plan) return; // the next frame begins anew
    this._faint(this._original); // results that came earlier are under it now
    for (let tile = 0; tile < map.count; tile++) if (map.status[tile] === DONE) this._wanted.add(tile);
    this._pump();
  }

  _faint(picture) {
    const { context, canvas } = this._base;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalAlpha = 0.4;
    context.filter = "grayscale(1)";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    context.globalAlpha = 1;
  }

  /** Ask for the pixels of the tiles that were finished meanwhile. */
  async _pump() {
    if (this._asking || !this._wanted.size || this._noPixels || this._closed) return;
    if (!this._map) return; // the size changed, and the next frame asks
    this._asking = true;
    const [map, plan, tiles] = [this._map, this._plan, [...this._wanted]];
    this._wanted.clear();
    const area = union(map, tiles);
    const side = Math.ceil(Math.max(area[2], area[3]) * this._scale);
    const picture = await this._picture({
      of: "result",
      area: area.join(","),
      max_side: Math.min(MAX_SIDE, Math.max(16, side)),
      format: "jpeg",
    });
    this._asking = false;
    if (this._closed || plan !== this._plan || map !== this._map) {
      picture?.bitmap?.close();
      return this._pump();
    }
    if (picture?.refused) this._noPixels = true; // a result that is no image
    else if (!picture) this._later(tiles);
    else this._paste(map, tiles, picture.bitmap, area);
    this._pump();
  }

  _later(tiles) {
    clearTimeout(this._retry);
    this._retry = setTimeout(() => {
      tiles.forEach((tile) => this._wanted.add(tile));
      this._pump();
    }, AGAIN_MS);
  }

  async _picture(query) {
    try {
      const response = await fetch(jobUrl(this._job, "preview", query));
      if (response.status === 409 || response.status === 404) return { refused: true };
      if (!response.ok) return null;
      return { bitmap: await createImageBitmap(await response.blob()) };
    } catch {
      return null;
    }
  }

  _paste(map, tiles, bitmap, [top, left, height, width]) {
    const { context } = this._base;
    const [kx, ky] = [bitmap.width / width, bitmap.height / height];
    for (const tile of tiles) {
      const [t, l, h, w] = map.area(tile);
      const [x, y, wide, high] = this._rect(map, tile);
      context.drawImage(bitmap, (l - left) * kx, (t - top) * ky, w * kx, h * ky, x, y, wide, high);
    }
    bitmap.close();
    this.pasted += tiles.length;
  }

  /** Where a tile is on the canvas, such that neighbours neither overlap nor leave a gap. */
  _rect(map, tile) {
    const [top, left, height, width] = map.area(tile);
    const s = this._scale;
    const [x, y] = [Math.floor(left * s), Math.floor(top * s)];
    return [x, y, Math.max(1, Math.floor((left + width) * s) - x), Math.max(1, Math.floor((top + height) * s) - y)];
  }

  _tint(map, tile, at) {
    const { context } = this._tints;
    const [x, y, width, height] = this._rect(map, tile);
    const status = map.status[tile];
    context.clearRect(x, y, width, height);
    if (status === SPLIT) return;
    const device = map.deviceOf(tile);
    const begun = this._fading.get(tile);
    const fading = begun === undefined ? 0 : Math.max(0, 1 - (at - begun) / FADE_MS);
    const fill = tintOf(status, device, fading, this.keepTints);
    if (fill) {
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    }
    if (status !== DONE && Math.min(width, height) >= 5) {
      context.strokeStyle = "rgb(128 136 148 / .45)";
      context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    }
    if (map.attempt[tile] > 1 && (status !== DONE || this.keepTints)) {
      notch(context, x, y, width, height);
    }
  }
}

function tintOf(status, device, fading, keep) {
  if (status === CUTTING) return "rgb(255 255 255 / .18)";
  if (!device) return "";
  const alpha =
    status === SENT ? 0.22 : status === RUNNING ? 0.46 : status === DONE ? 0.65 * fading + (keep ? 0.38 * (1 - fading) : 0) : 0;
  return alpha ? colour(device, alpha.toFixed(3)) : "";
}

/** A corner that marks a tile which was given out again. */
function notch(context, x, y, width, height) {
  const side = Math.max(3, Math.min(14, width / 2, height / 2));
  context.fillStyle = "#f59e0b";
  context.beginPath();
  context.moveTo(x + width - side, y);
  context.lineTo(x + width, y);
  context.lineTo(x + width, y + side);
  context.fill();
}

function union(map, tiles) {
  let [top, left, bottom, right] = [Infinity, Infinity, 0, 0];
  for (const tile of tiles) {
    const [t, l, h, w] = map.area(tile);
    top = Math.min(top, t);
    left = Math.min(left, l);
    bottom = Math.max(bottom, t + h);
    right = Math.max(right, l + w);
  }
  return [top, left, bottom - top, right - left];
}

function layer(box) {
  const canvas = document.createElement("canvas");
  canvas.className = "layer";
  canvas.setAttribute("aria-hidden", "true");
  box.append(canvas);
  return { canvas, context: canvas.getContext("2d") };
}

function deviceSize(canvas) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const side = Math.max(canvas.clientWidth, canvas.clientHeight, 1);
  const factor = Math.min(ratio, 2 * MAX_SIDE / side);
  return [Math.max(1, Math.round(canvas.clientWidth * factor)), Math.max(1, Math.round(canvas.clientHeight * factor))];
}

function copyOf(canvas) {
  const copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext("2d").drawImage(canvas, 0, 0);
  return copy;
}
