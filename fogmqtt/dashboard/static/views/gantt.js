// Rows of bars over time on a canvas: for timelines and forecasts. By keyboard, too, and as a table.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { colour } from "../model/colours.js";
import { duration, number } from "../model/format.js";
import { html, Icon } from "./html.js";

const ROW = 26;
const BAR = 18;
const AXIS = 24;
const LEAST_WIDTH = 1.5;
const TABLE_ROWS = 500;

/** Which bar is at a row and a time; bars of a row are sorted by begin. */
export function barAt(row, seconds, slack = 0) {
  let best = null;
  for (const bar of row?.bars ?? []) {
    if (bar.begin - slack > seconds) break;
    if (bar.end + slack >= seconds) best = bar;
  }
  return best;
}

class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.rows = [];
    this.begin = 0;
    this.end = 1;
    this.selected = null;
    this._resizer = new ResizeObserver(() => this.draw());
    this._resizer.observe(canvas);
    this._dark = matchMedia("(prefers-color-scheme: dark)");
    this._repaint = () => this.draw();
    this._dark.addEventListener("change", this._repaint);
  }

  close() {
    this._resizer.disconnect();
    this._dark.removeEventListener("change", this._repaint);
    cancelAnimationFrame(this._frame);
  }

  get gutter() {
    return this.canvas.clientWidth < 520 ? 70 : 160;
  }

  seconds(x) {
    return this.begin + ((x - this.gutter) / (this.canvas.clientWidth - this.gutter)) * (this.end - this.begin);
  }

  x(seconds) {
    return this.gutter + ((seconds - this.begin) / (this.end - this.begin)) * (this.canvas.clientWidth - this.gutter);
  }

  find(x, y) {
    const row = this.rows[Math.floor((y - AXIS) / ROW)];
    if (!row || x < this.gutter) return null;
    const slack = (3 * (this.end - this.begin)) / this.canvas.clientWidth;
    return barAt(row, this.seconds(x), slack);
  }

  draw() {
    cancelAnimationFrame(this._frame);
    this._frame = requestAnimationFrame(() => this._paint());
  }

  _paint() {
    const { canvas, rows } = this;
    const [width, height] = [canvas.clientWidth, AXIS + rows.length * ROW];
    const ratio = Math.min(2, devicePixelRatio || 1);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const ink = { text: style.color, line: style.borderTopColor, quiet: style.caretColor };
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "middle";
    this._paintAxis(context, width, height, ink);
    rows.forEach((row, at) => this._paintRow(context, row, AXIS + at * ROW, width, ink));
  }

  _paintAxis(context, width, height, ink) {
    const step = niceStep((this.end - this.begin) / Math.max(2, (width - this.gutter) / 90));
    for (let at = Math.ceil(this.begin / step) * step; at <= this.end; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      context.fillStyle = ink.line;
      context.fillRect(x, AXIS - 4, 1, height);
      const text = at < step / 2 ? "0" : duration(at);
      context.fillStyle = ink.quiet;
      if (x + 3 + context.measureText(text).width <= width) context.fillText(text, x + 3, AXIS / 2);
    }
  }

  _paintRow(context, row, y, width, ink) {
    context.fillStyle = ink.line;
    context.fillRect(0, y + ROW - 1, width, 1);
    context.fillStyle = tint(row, 1, ink);
    context.fillRect(8, y + 8, 10, 10);
    context.fillStyle = ink.text;
    context.fillText(shortened(context, row.name, this.gutter - 30), 23, y + ROW / 2);
    context.save();
    context.beginPath();
    context.rect(this.gutter, y, width - this.gutter, ROW);
    context.clip();
    for (const bar of row.bars) {
      if (bar.end < this.begin || bar.begin > this.end) continue;
      this._paintBar(context, row, bar, y + (ROW - BAR) / 2, ink);
    }
    context.restore();
  }

  _paintBar(context, row, bar, y, ink) {
    const x = this.x(bar.begin);
    const width = Math.max(LEAST_WIDTH, this.x(bar.end) - x - 0.5);
    context.fillStyle = tint(row, bar.parts?.length ? 0.22 : bar.tone === "lost" ? 0.25 : 0.8, ink);
    context.fillRect(x, y, width, BAR);
    for (const part of bar.parts ?? []) {
      const middle = (part.begin + part.end) / 2;
      if (middle <= bar.begin || middle >= bar.end) continue; // on another track
      context.fillStyle = colour(row.device, PART_ALPHA[part.tone] ?? 0.4);
      context.fillRect(this.x(part.begin), y + (part.tone === "work" ? 0 : 5), Math.max(0.5, this.x(part.end) - this.x(part.begin)), part.tone === "work" ? BAR : BAR - 10);
    }
    if (bar.tone === "lost" || bar.tone === "hedge") {
      context.strokeStyle = bar.tone === "lost" ? "#dc2626" : "#f59e0b";
      context.lineWidth = 1.5;
      context.strokeRect(x + 0.75, y + 0.75, Math.max(1, width - 1.5), BAR - 1.5);
    }
    if (bar === this.selected) {
      context.strokeStyle = ink.text;
      context.lineWidth = 2;
      context.strokeRect(x - 1, y - 1, width + 2, BAR + 2);
    }
  }
}

/** The colour of a row: its device's, or that of quiet text. */
function tint(row, alpha, ink) {
  return row.device ? colour(row.device, alpha) : ink.quiet;
}

/** Work on the device is solid; travel and waiting are thin. */
const PART_ALPHA = { work: 0.95, wire: 0.55, wait: 0.3, gateway: 0.7 };

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1e-6, least)));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= least);
}

function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let end = text.length;
  while (end > 1 && context.measureText(`${text.slice(0, end)}…`).width > width) end--;
  return `${text.slice(0, end)}…`;
}

/**
 * `rows`: `{name, device, bars: [{begin, end, label, tone, parts}]}`, seconds. `select(bar, row)`
 * hears of a choice, by pointer or keys.
 */
export function Gantt({ rows, end, label, selected = null, select = null }) {
  const canvas = useRef(null);
  const chart = useRef(null);
  const [range, setRange] = useState([0, end]);
  const [told, setTold] = useState("");
  const [own, setOwn] = useState(null);
  const chosen = select ? selected : own;
  const choose = (bar, row) => {
    (select ?? setOwn)(bar, row);
    setTold(bar ? `${row.name}: ${bar.label}, ${duration(bar.end - bar.begin)}` : "");
  };

  useEffect(() => {
    chart.current = new Chart(canvas.current);
    canvas.current.chart = chart.current;
    return () => chart.current.close();
  }, []);
  useEffect(() => setRange([0, end]), [end]);
  useEffect(() => {
    Object.assign(chart.current, { rows, begin: range[0], end: Math.max(range[1], range[0] + 1e-6), selected: chosen });
    chart.current.draw();
  }, [rows, range, chosen]);

  const zoom = (factor, middle = (range[0] + range[1]) / 2) =>
    setRange(([begin, until]) => within(middle - (middle - begin) / factor, middle + (until - middle) / factor, end));
  const move = (share) => setRange(([begin, until]) => within(begin + share * (until - begin), until + share * (until - begin), end));

  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const click = (event) => {
    const [x, y] = point(event);
    const bar = chart.current.find(x, y);
    choose(bar, bar && rows.find((row) => row.bars.includes(bar)));
  };
  const key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoom(1.6);
    else if (event.key === "-") zoom(1 / 1.6);
    else if (event.key === "0") setRange([0, end]);
    else if (event.key === "PageUp") move(-0.5);
    else if (event.key === "PageDown") move(0.5);
    else if (event.key === "Escape") choose(null, null);
    else if (event.key.startsWith("Arrow")) {
      const [bar, row] = neighbour(rows, chosen, event.key);
      if (bar) choose(bar, row);
      if (bar && (bar.begin > range[1] || bar.end < range[0])) move(bar.begin > range[1] ? 0.5 : -0.5);
    } else return;
    event.preventDefault();
  };
  return html`<div class="gantt">
    <div class="tools">
      <button type="button" onClick=${() => zoom(1 / 1.6)} aria-label="Show more time"><${Icon} name="minus" /></button>
      <button type="button" onClick=${() => zoom(1.6)} aria-label="Show less time"><${Icon} name="plus" /></button>
      <button type="button" onClick=${() => setRange([0, end])} aria-label="Show all of it"><${Icon} name="fit" /></button>
      <button type="button" onClick=${() => move(-0.5)} disabled=${range[0] <= 0}>Earlier</button>
      <button type="button" onClick=${() => move(0.5)} disabled=${range[1] >= end}>Later</button>
      <span class="small quiet right" role="status">${told || "Click a bar, or choose one with the arrow keys."}</span>
    </div>
    <canvas ref=${canvas} tabindex="0" role="img" aria-label=${label} onClick=${click} onKeyDown=${key}></canvas>
    <${BarTable} rows=${rows} choose=${choose} />
  </div>`;
}

function within(begin, until, end) {
  const wide = Math.min(end, until - begin);
  const from = Math.max(0, Math.min(begin, end - wide));
  return [from, from + wide];
}

/** The bar that an arrow key leads to, with its row. */
export function neighbour(rows, bar, key) {
  const filled = rows.filter((row) => row.bars.length);
  if (!filled.length) return [null, null];
  const at = filled.findIndex((row) => row.bars.includes(bar));
  if (at < 0) return [filled[0].bars[0], filled[0]];
  const row = filled[at];
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = row.bars[row.bars.indexOf(bar) + (key === "ArrowLeft" ? -1 : 1)];
    return [next ?? bar, row];
  }
  const other = filled[Math.max(0, Math.min(filled.length - 1, at + (key === "ArrowUp" ? -1 : 1)))];
  const nearest = other.bars.reduce((best, one) => (Math.abs(one.begin - bar.begin) < Math.abs(best.begin - bar.begin) ? one : best));
  return [nearest, other];
}

function BarTable({ rows, choose }) {
  const [isOpen, setOpen] = useState(false);
  const all = rows.flatMap((row) => row.bars.map((bar) => [bar, row])).sort(([a], [b]) => a.begin - b.begin);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>The same as a table (${number(all.length)} bars)</summary>
    ${isOpen &&
    html`<div class="scroll" tabindex="0" role="region" aria-label="Bars as a table"><table class="plain-table">
      <thead><tr><th scope="col">Worker</th><th scope="col">What</th><th scope="col" class="num">from</th><th scope="col" class="num">took</th></tr></thead>
      <tbody>${all.slice(0, TABLE_ROWS).map(
        ([bar, row], at) => html`<tr key=${at}><td>${row.name}</td><td><button type="button" class="plain-button" onClick=${() => choose(bar, row)}>${bar.label}</button></td>
          <td class="num">${duration(bar.begin)}</td><td class="num">${duration(bar.end - bar.begin)}</td></tr>`,
      )}</tbody></table>
      ${all.length > TABLE_ROWS && html`<p class="small quiet">The first ${TABLE_ROWS} bars; filter to see others.</p>`}
    </div>`}
  </details>`;
}
