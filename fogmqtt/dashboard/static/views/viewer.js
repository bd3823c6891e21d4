// The pictures of a finished job: before and after, down to single pixels, with the facts over them.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { jobUrl } from "../model/api.js";
import { colour } from "../model/colours.js";
import { DONE } from "../model/tiles.js";
import { Viewport } from "../model/viewport.js";
import { html, Icon } from "./html.js";

const BASE_SIDE = 1600;
const CROP_SIDE = 4096;
const SETTLE_MS = 120;
/** From this many screen pixels a pixel on, values can be read. */
const READ_SCALE = 8;
const STEP = 60;

/** The drawing itself, without preact. `changed(view)` hears of what the pointer is over. */
class Drawing {
  constructor(canvas, card, changed) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this._card = card;
    this._changed = changed;
    this.split = 1;
    this.shapes = [];
    this.selected = null;
    /** The tiles to tint, or null. */
    this.tiles = null;
    const [width, height] = sizeOf(card);
    this.viewport = new Viewport(width, height, 1, 1);
    this._pictures = { original: {}, result: {} };
    this._resizer = new ResizeObserver(() => this._resize());
    this._resizer.observe(canvas);
    for (const of of ["original", "result"]) if (card.files?.[of] || of === "result") this._loadBase(of);
  }

  close() {
    this._closed = true;
    this._resizer.disconnect();
    clearTimeout(this._settle);
    cancelAnimationFrame(this._frame);
    for (const { base, crop } of Object.values(this._pictures)) for (const one of [base, crop]) one?.bitmap.close();
  }

  /** Whether all pictures that are seen have arrived. */
  get isComplete() {
    return ["original", "result"].every((of) => !this._isSeen(of) || this._pictures[of].base);
  }

  /** Whether what is seen are the image's own pixels. */
  get isExact() {
    return ["original", "result"].every((of) => !this._isSeen(of) || this._pictures[of].crop?.exact);
  }

  /** Redraw soon; after the last change, ask for the pixels that the screen lacks. */
  draw() {
    this._paintSoon();
    clearTimeout(this._settle);
    this._settle = setTimeout(() => this._loadCrops(), SETTLE_MS);
    this.canvas.style.touchAction = this.viewport.isFit ? "pan-y" : "none";
  }

  /** The values at a place of the screen: `{x, y, original, result}`, or null. */
  read(screenX, screenY) {
    const [x, y] = this.viewport.toPicture(screenX, screenY).map(Math.floor);
    const { width, height, scale } = this.viewport;
    if (scale < READ_SCALE || x < 0 || y < 0 || x >= width || y >= height) return null;
    return { x, y, original: this._value("original", x, y), result: this._value("result", x, y) };
  }

  _value(of, x, y) {
    const crop = this._pictures[of].crop;
    if (!crop?.exact) return "";
    const [top, left, height, width] = crop.area;
    if (x < left || y < top || x >= left + width || y >= top + height) return "";
    this._eye ??= Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const eye = this._eye.getContext("2d", { willReadFrequently: true });
    eye.clearRect(0, 0, 1, 1);
    eye.drawImage(crop.bitmap, left - x, top - y);
    const [red, green, blue] = eye.getImageData(0, 0, 1, 1).data;
    return red === green && green === blue ? String(red) : `${red} ${green} ${blue}`;
  }

  _resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this._ratio = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.round(clientWidth * this._ratio);
    this.canvas.height = Math.round(clientHeight * this._ratio);
    this.viewport.resize(clientWidth, clientHeight);
    this.draw();
  }

  async _loadBase(of) {
    const picture = await load(this._card.id, { of, max_side: BASE_SIDE, format: "jpeg" });
    if (this._closed) return picture?.bitmap.close();
    if (picture) this._pictures[of].base = picture;
    this.draw();
  }

  async _loadCrops() {
    if (!this._ratio) return; // it has no size yet, and is drawn again when it has
    const area = this.viewport.area();
    for (const of of ["original", "result"]) {
      const { base, crop } = this._pictures[of];
      if (!base || !this._isSeen(of)) continue;
      const ratio = (this._ratio * this.viewport.scale * this.viewport.width) / base.bitmap.width;
      if (ratio <= 1.05) continue;
      const wanted = this._scaled(of, grown(area, this.viewport));
      const scale = (this._ratio * this.viewport.scale * this.viewport.width) / base.size[1];
      const exact = scale >= 1;
      if (crop && contains(crop.area, this._scaled(of, area)) && (crop.exact || crop.scale >= scale * 0.9)) continue;
      const side = Math.max(wanted[2], wanted[3]);
      const picture = await load(this._card.id, {
        of,
        area: wanted.join(","),
        max_side: Math.min(CROP_SIDE, Math.max(16, exact ? side : Math.ceil(side * scale))),
        format: exact ? "png" : "jpeg",
      });
      if (this._closed) return picture?.bitmap.close();
      if (!picture) continue;
      this._pictures[of].crop?.bitmap.close(); // one that came meanwhile, too
      this._pictures[of].crop = { ...picture, area: wanted, scale, exact: exact && picture.bitmap.width === wanted[3] };
      this._paintSoon();
    }
  }

  _paintSoon() {
    if (!this._frame) {
      this._frame = requestAnimationFrame(() => {
        this._frame = 0;
        if (!this._closed) this._paint();
      });
    }
    this._changed(this);
  }

  _isSeen(of) {
    return of === "original" ? this.split > 0 : this.split < 1;
  }

  /** An area of the viewport in pixels of one of the pictures, which may have another size. */
  _scaled(of, [top, left, height, width]) {
    const [high, wide] = this._pictures[of].base.size;
    const [ky, kx] = [high / this.viewport.height, wide / this.viewport.width];
    const [y, x] = [Math.floor(top * ky), Math.floor(left * kx)];
    return [y, x, Math.max(1, Math.min(high - y, Math.ceil(height * ky))), Math.max(1, Math.min(wide - x, Math.ceil(width * kx)))];
  }

  _paint() {
    const { context, canvas, viewport } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const at = Math.round(canvas.width * this.split);
    this._paintPicture("original", 0, at);
    this._paintPicture("result", at, canvas.width);
    context.setTransform(this._ratio, 0, 0, this._ratio, 0, 0);
    this._paintTiles(viewport);
    this._paintShapes();
  }

  _paintPicture(of, from, to) {
    const { base, crop } = this._pictures[of];
    if (!base || to <= from) return;
    const { context, canvas, viewport } = this;
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, canvas.height);
    context.clip();
    const scale = viewport.scale * this._ratio;
    context.setTransform(scale, 0, 0, scale, -viewport.x * scale, -viewport.y * scale);
    context.imageSmoothingEnabled = scale < 1;
    context.imageSmoothingQuality = "high";
    context.drawImage(base.bitmap, 0, 0, viewport.width, viewport.height);
    if (crop && scale * viewport.width > base.bitmap.width * 1.05) {
      const [top, left, height, width] = crop.area;
      const [ky, kx] = [viewport.height / base.size[0], viewport.width / base.size[1]];
      context.drawImage(crop.bitmap, left * kx, top * ky, width * kx, height * ky);
    }
    context.restore();
  }

  /** Tint each tile with the colour of the device that did it. */
  _paintTiles({ width, height }) {
    const { context, tiles } = this;
    if (!tiles) return;
    const [ky, kx] = [height / tiles.height, width / tiles.width];
    for (let tile = 0; tile < tiles.count; tile++) {
      if (tiles.status[tile] !== DONE) continue;
      const [top, left, high, wide] = tiles.area(tile);
      const [x, y] = this.viewport.toScreen(left * kx, top * ky);
      const [right, bottom] = this.viewport.toScreen((left + wide) * kx, (top + high) * ky);
      context.fillStyle = colour(tiles.deviceOf(tile), 0.35);
      context.fillRect(x, y, right - x, bottom - y);
    }
  }

  _paintShapes() {
    const { context, viewport } = this;
    context.font = "12px system-ui, sans-serif";
    context.lineJoin = "round";
    this.shapes.forEach((shape, index) => {
      if (!shape) return;
      const chosen = index === this.selected;
      const points = shape.points.map(([x, y]) => viewport.toScreen(x, y));
      context.beginPath();
      points.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (points.length > 2) context.closePath();
      for (const [colour, width] of [["rgb(0 0 0 / .65)", chosen ? 6 : 3.5], [chosen ? "#facc15" : "#22d3ee", chosen ? 3 : 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      }
      if (shape.label && (chosen || this.shapes.length <= 60)) label(context, points, shape.label, chosen);
    });
  }
}

function label(context, points, text, chosen) {
  const x = Math.min(...points.map(([one]) => one));
  const y = Math.min(...points.map(([, one]) => one));
  const short = text.length > 40 ? `${text.slice(0, 39)}…` : text;
  const width = context.measureText(short).width + 8;
  context.fillStyle = chosen ? "#facc15" : "rgb(8 47 73 / .85)";
  context.fillRect(x, Math.max(0, y - 18), width, 17);
  context.fillStyle = chosen ? "#111" : "#e0f2fe";
  context.fillText(short, x + 4, Math.max(0, y - 18) + 12.500);
}

async function load(job, query) {
  try {
    const response = await fetch(jobUrl(job, "preview", query));
    if (!response.ok) return null;
    const [height, width] = (response.headers.get("Fogmqtt-Size") ?? "").split(",").map(Number);
    const bitmap = await createImageBitmap(await response.blob());
    const size = height && width ? [height, width] : [bitmap.height, bitmap.width];
    return { bitmap, size };
  } catch {
    return null;
  }
}

function sizeOf(card) {
  const known = card.width && card.height ? [card.width, card.height] : null;
  return known ?? [card.result_width || 1, card.result_height || 1];
}

function grown([top, left, height, width], { width: wide, height: high }) {
  const [dy, dx] = [Math.ceil(height / 4), Math.ceil(width / 4)];
  const [y, x] = [Math.max(0, top - dy), Math.max(0, left - dx)];
  return [y, x, Math.min(high, top + height + dy) - y, Math.min(wide, left + width + dx) - x];
}

function contains(outer, [top, left, height, width]) {
  return (
    top >= outer[0] && left >= outer[1] && top + height <= outer[0] + outer[2] && left + width <= outer[1] + outer[3]
  );
}

/**
 * `list` is a table of the facts whose shapes are shown, `selected` a row of it. `tiles` are those of
 * the last stage, if they are known.
 */
export function Viewer({ card, list, selected, tiles }) {
  const canvas = useRef(null);
  const drawing = useRef(null);
  const [split, setSplit] = useState(50);
  const [zoom, setZoom] = useState("");
  const [value, setValue] = useState(null);
  const [shown, setShown] = useState(true);
  const [tinted, setTinted] = useState(false);
  const hasBoth = Boolean(card.files?.original) && sameShape(card);

  useEffect(() => {
    const one = new Drawing(canvas.current, card, (view) => setZoom(`${Math.round(view.viewport.scale * 100)} %`));
    drawing.current = one;
    canvas.current.drawing = one;
    const end = handlePointers(canvas.current, one, setValue);
    return () => {
      end();
      one.close();
    };
  }, [card.id]);

  useEffect(() => {
    const one = drawing.current;
    one.split = hasBoth ? split / 100 : 0;
    one.shapes = shown && list ? list.shapes : [];
    one.selected = selected;
    one.tiles = tinted ? tiles : null;
    const shape = selected == null ? null : one.shapes[selected];
    if (shape) {
      const xs = shape.points.map(([x]) => x);
      const ys = shape.points.map(([, y]) => y);
      const [x, y] = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
      if (!one.viewport.isFit) one.viewport.show(x, y);
    }
    one.draw();
  }, [card.id, split, list, selected, shown, tinted, hasBoth]);

  const zoomBy = (factor) => {
    drawing.current.viewport.zoom(factor);
    drawing.current.draw();
  };
  const fit = () => {
    drawing.current.viewport.fit();
    drawing.current.draw();
  };

  const [width, height] = sizeOf(card);
  return html`<figure class="viewer">
    <div class="stage" style=${{ aspectRatio: `${width} / ${height}` }}>
      <canvas ref=${canvas} class="layer" tabindex="0" role="img" aria-describedby="viewer-help"
        aria-label=${hasBoth ? "Before on the left, after on the right" : "The result"}
        onKeyDown=${(event) => onKey(event, drawing.current, setSplit)}></canvas>
      ${hasBoth &&
      html`<div class="divider" style=${{ left: `${split}%` }} aria-hidden="true"></div>
        <input class="split" type="range" min="0" max="100" step="0.5" value=${split}
          aria-label="How much is shown as it was before" aria-valuetext=${`${Math.round(split)} % before, the rest after`}
          onInput=${(event) => setSplit(Number(event.target.value))} />
        <span class="tag left" hidden=${split < 12}>before</span><span class="tag right" hidden=${split > 88}>after</span>`}
    </div>
    <figcaption class="tools">
      <button onClick=${() => zoomBy(1 / 1.6)} aria-label="Zoom out"><${Icon} name="minus" /></button>
      <output class="small" aria-label="Zoom">${zoom}</output>
      <button onClick=${() => zoomBy(1.6)} aria-label="Zoom in"><${Icon} name="plus" /></button>
      <button onClick=${fit} aria-label="Show all"><${Icon} name="fit" /></button>
      ${list?.shapes.some(Boolean) &&
      html`<label><input type="checkbox" checked=${shown} onChange=${(event) => setShown(event.target.checked)} /> ${list.name}</label>`}
      ${tiles && html`<label><input type="checkbox" checked=${tinted} onChange=${(event) => setTinted(event.target.checked)} /> who did what</label>`}
      <span class="small quiet right" id="viewer-help">${value ? pixelWords(value) : html`Drag, wheel or pinch.<span class="keys"> With keys: arrows, + and −, 0 for all, [ and ] for the slider.</span>`}</span>
    </figcaption>
  </figure>`;
}

function pixelWords({ x, y, original, result }) {
  const values = [original && `before ${original}`, result && `after ${result}`].filter(Boolean);
  return [`x ${x}, y ${y}`, ...values].join(" · ");
}

function sameShape(card) {
  if (!card.result_width || !card.width) return true;
  return Math.abs(card.result_width / card.result_height - card.width / card.height) < 0.02;
}

function onKey(event, drawing, setSplit) {
  const { viewport } = drawing;
  const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (moves[event.key]) viewport.move(...moves[event.key]);
  else if (event.key === "+" || event.key === "=") viewport.zoom(1.6);
  else if (event.key === "-") viewport.zoom(1 / 1.6);
  else if (event.key === "0") viewport.fit();
  else if (event.key === "[" || event.key === "]") {
    setSplit((old) => Math.min(100, Math.max(0, old + (event.key === "[" ? -5 : 5))));
  } else return;
  event.preventDefault();
  drawing.draw();
}

/** Drag, wheel, pinch and double click. Returns how to end that. */
function handlePointers(canvas, drawing, setValue) {
  const pointers = new Map();
  const end = new AbortController();
  const on = (kind, handle, options) => canvas.addEventListener(kind, handle, { signal: end.signal, ...options });
  on("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
  });
  on("pointermove", (event) => {
    setValue(drawing.read(event.offsetX, event.offsetY));
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) pinch(canvas, drawing, pointers, event);
    else drawing.viewport.move(event.clientX - before.clientX, event.clientY - before.clientY);
    pointers.set(event.pointerId, event);
    drawing.draw();
  });
  for (const kind of ["pointerup", "pointercancel"]) on(kind, (event) => pointers.delete(event.pointerId));
  on("pointerleave", () => setValue(null));
  on("dblclick", (event) => {
    drawing.viewport.zoom(2.5, event.offsetX, event.offsetY);
    drawing.draw();
  });
  on(
    "wheel",
    (event) => {
      // Over a picture that is seen whole, the wheel moves the page, as everywhere.
      const isMeant = event.ctrlKey || !drawing.viewport.isFit || document.activeElement === canvas;
      if (!isMeant) return;
      event.preventDefault();
      drawing.viewport.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), event.offsetX, event.offsetY);
      drawing.draw();
    },
    { passive: false },
  );
  return () => end.abort();
}

function pinch(canvas, drawing, pointers, event) {
  const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
  const before = pointers.get(event.pointerId);
  const spread = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  const box = canvas.getBoundingClientRect();
  const [x, y] = [(event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top];
  drawing.viewport.zoom(spread(event) / Math.max(1, spread(before)), x, y);
  drawing.viewport.move((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
}
