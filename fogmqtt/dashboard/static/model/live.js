// All streams of the page over one WebSocket: each shows its newest frame when it is ready for it.
//
// A frame is asked for when the one before is drawn. So a slow page or link shows fewer frames, and
// none waits anywhere and grows old.

import { signal } from "../vendor/signals-core.js";

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 20;
/** Values that a chart shows: a minute, as the list comes once a second. */
export const AGES = 60;
const WIDEST = 3840;

export class Live {
  /** `open()` makes a WebSocket. */
  constructor(open) {
    this._open = open;
    this._socket = null;
    this._failures = 0;
    /** What draws the frames of each stream, and how wide it is. */
    this._shown = new Map();
    /** How each stream does; null before it is known. */
    this.cards = signal(null);
    /** Whether the dashboard answers. */
    this.isAway = signal(false);
    /** The newest ages of each stream, in seconds. */
    this.ages = new Map();
    /** The newest frames a second of each stream, as `[in, out]`. */
    this.rates = new Map();
  }

  start() {
    const socket = this._open();
    this._socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this._failures = 0;
      this.isAway.value = false;
      this._say();
    };
    socket.onmessage = (event) => this._hear(socket, event.data);
    socket.onclose = () => {
      if (socket !== this._socket) return;
      this.isAway.value = true;
      const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this._failures++);
      this._timer = setTimeout(() => this.start(), wait * 1000);
    };
  }

  stop() {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    socket?.close();
  }

  /** Have `draw(jpeg, head)` draw the frames of a stream; its promise ends when it has. */
  show(name, width, draw) {
    const same = this._shown.get(name)?.width === width;
    this._shown.set(name, { width, draw });
    if (!same) this._say();
  }

  hide(name) {
    if (this._shown.delete(name)) this._say();
  }

  _say() {
    this._send({ show: Object.fromEntries([...this._shown].map(([name, one]) => [name, one.width])) });
  }

  _send(told) {
    if (this._socket?.readyState === 1) this._socket.send(JSON.stringify(told));
  }

  async _hear(socket, data) {
    if (socket !== this._socket) return;
    if (typeof data === "string") {
      this._take(JSON.parse(data).streams);
      return;
    }
    const { head, jpeg } = unpack(data);
    const shown = this._shown.get(head.stream);
    if (!shown) return;
    await shown.draw(jpeg, head).catch(() => {}); // after a damaged picture the next one comes
    if (socket === this._socket) this._send({ ready: head.stream });
  }

  _take(cards) {
    for (const card of cards) {
      if (!card.state) continue;
      keep(this.ages, card.name, card.state.age_s.p99);
      keep(this.rates, card.name, [card.state.fps_in, card.state.fps_out]);
    }
    this.cards.value = cards;
  }
}

/** Add a value to those of the last minute. */
function keep(values, name, value) {
  values.set(name, [...(values.get(name) ?? []), value].slice(-AGES));
}

/** The text and the picture of a frame. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint16(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 2, length)));
  return { head, jpeg: new Uint8Array(buffer, 2 + length) };
}

/** The width of a picture in pixels of the screen, in steps, so that a small change asks for nothing new. */
export function pictureWidth(cssWidth, ratio) {
  return Math.min(WIDEST, Math.max(160, Math.ceil((cssWidth * ratio) / 160) * 160));
}

const REASONS = {
  decimated: "over the limit of fps",
  superseded: "replaced by newer ones",
  gap: "damaged or lost with the camera",
  too_late: "too late to begin",
  no_device: "without a device",
  late: "late",
  failed: "failed",
};

/** Why frames did not come out, as `[reason, frames]`, the most first. */
export function drops(state) {
  const counts = { ...state.dropped, late: state.late, failed: state.failed };
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .sort(([, one], [, other]) => other - one)
    .map(([why, count]) => [REASONS[why] ?? why, count]);
}

const SOURCES = { connected: "Live", connecting: "Connecting", lost: "Away", ended: "Ended" };
const STATUSES = { disabled: "Off", offline: "Ended" };

/** The state of a stream in a word. */
export function word(card) {
  if (card.status !== "online") return card.tone === "bad" ? "Cannot run" : STATUSES[card.status];
  return SOURCES[card.state?.source] ?? "Live";
}
