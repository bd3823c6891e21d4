// The tiles of one running job, in typed arrays, and which of them changed since they were drawn.

export const WAITING = 0;
export const CUTTING = 1;
export const SENT = 2;
export const RUNNING = 3;
export const DONE = 4;
export const SPLIT = 5;
export const STATUS_WORDS = ["waiting", "being cut", "sent", "at work", "done", "split"];

export class TileMap {
  constructor() {
    this.version = -1;
    this.stage = 0;
    this.height = 0;
    this.width = 0;
    /** Names of devices; `device` holds indices into it. */
    this.devices = [];
    this.count = 0;
    this.done = 0;
    this.changed = new Set();
    /** Tiles whose result came since `takeFinished`. */
    this.finished = new Set();
    /** Grows when all tiles are others: a new stage or plan. */
    this.plan = 0;
    this.retried = 0;
    this._places = new Map();
    this._grow(64);
  }

  /** Apply a `TilesUpdate`. An older version than the present one is ignored. */
  apply(update) {
    const another =
      update.stage !== this.stage || update.height !== this.height || update.width !== this.width;
    if (!another && update.version < this.version) return;
    if (another) this._begin(update);
    this.version = update.version;
    for (const [index, area] of Object.entries(update.cores ?? {})) this._place(Number(index), area);
    const devices = (update.devices ?? []).map((name) => this._deviceIndex(name));
    for (const [tile, status, device, attempt] of update.rows ?? []) {
      this._set(tile, status, device < 0 ? -1 : (devices[device] ?? -1), attempt);
    }
  }

  /** Top, left, height and width of a tile. */
  area(tile) {
    return this.areas.subarray(4 * tile, 4 * tile + 4);
  }

  deviceOf(tile) {
    return this.devices[this.device[tile]] ?? "";
  }

  /** The tiles that changed since the last call. */
  takeChanged() {
    const taken = [...this.changed];
    this.changed.clear();
    return taken;
  }

  takeFinished() {
    const taken = [...this.finished].filter((tile) => this.status[tile] === DONE);
    this.finished.clear();
    return taken;
  }

  /** The tile at a pixel; -1 if there is none. Of halves and what they came from, the half. */
  at(row, column) {
    for (let tile = this.count - 1; tile >= 0; tile--) {
      const [top, left, height, width] = this.area(tile);
      const inside =
        row >= top && row < top + height && column >= left && column < left + width;
      if (inside && this.status[tile] !== SPLIT) return tile;
    }
    return -1;
  }

  /** How many tiles each device holds and has done: name → {held, done}. */
  shares() {
    const held = new Uint32Array(this.devices.length);
    const done = new Uint32Array(this.devices.length);
    for (let tile = 0; tile < this.count; tile++) {
      const device = this.device[tile];
      if (device < 0) continue;
      if (this.status[tile] === DONE) done[device]++;
      else if (this.status[tile] !== SPLIT) held[device]++;
    }
    return new Map(this.devices.map((name, at) => [name, { held: held[at], done: done[at] }]));
  }

  _begin({ stage, height, width }) {
    this.stage = stage;
    this.height = height;
    this.width = width;
    this.count = 0;
    this.done = 0;
    this.retried = 0;
    this.plan++;
    this.changed.clear();
    this.finished.clear();
    this._grow(64);
  }

  _deviceIndex(name) {
    if (!this._places.has(name)) {
      this._places.set(name, this.devices.length);
      this.devices.push(name);
    }
    return this._places.get(name);
  }

  _place(tile, area) {
    while (tile >= this.status.length) this._grow(2 * this.status.length);
    this.areas.set(area, 4 * tile);
    this.count = Math.max(this.count, tile + 1);
    this.changed.add(tile);
  }

  _set(tile, status, device, attempt) {
    if (tile >= this.count) return; // its core never came: the next snapshot brings it
    const before = this.status[tile];
    if (status === DONE && before !== DONE) this.finished.add(tile);
    this.done += (status === DONE) - (before === DONE);
    this.retried += (attempt > 1) - (this.attempt[tile] > 1);
    this.status[tile] = status;
    this.device[tile] = device;
    this.attempt[tile] = attempt;
    this.changed.add(tile);
  }

  _grow(room) {
    const old = this.count ? this : null;
    const status = new Uint8Array(room);
    const device = new Int16Array(room).fill(-1);
    const attempt = new Uint16Array(room);
    const areas = new Int32Array(4 * room);
    if (old) {
      status.set(this.status);
      device.set(this.device);
      attempt.set(this.attempt);
      areas.set(this.areas);
    }
    Object.assign(this, { status, device, attempt, areas });
  }
}
