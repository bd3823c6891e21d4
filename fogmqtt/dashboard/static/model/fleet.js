// All that the page knows of the gateway, its devices and its jobs. It applies a snapshot and the
// updates after it. Each card is a signal of its own, so that a change draws one card anew.

import { batch, computed, signal } from "../vendor/signals-core.js";
import { meet } from "./colours.js";
import { TileMap } from "./tiles.js";

const ENDED = new Set(["done", "failed", "cancelled"]);
/** Ended jobs whose tiles are kept, to show who did what. */
const KEPT_TILES = 24;

export class Fleet {
  constructor() {
    this.gateway = signal(null);
    /** Names in alphabetical order. */
    this.deviceIds = signal([]);
    /** The newest first. */
    this.jobIds = signal([]);
    /** When the gateway wrote what was heard last, in Unix seconds of its clock. */
    this.at = signal(0);
    this.sequence = -1;
    this.boot = "";
    this._devices = new Map();
    this._jobs = new Map();
    this._tiles = new Map();
    this._listeners = new Set();
    this.running = computed(() =>
      this.jobIds.value.filter((id) => !ENDED.has(this.job(id).value?.state ?? "done")),
    );
  }

  /** The signal of a device's card; its value is undefined while there is none. */
  device(id) {
    return signalOf(this._devices, id);
  }

  /** The signal of a job's card. */
  job(id) {
    return signalOf(this._jobs, id);
  }

  /** The tiles of a running job, or undefined. */
  tiles(id) {
    return this._tiles.get(id);
  }

  /** Call `heard({jobs, devices, tiles})` after each message; returns how to end that. */
  listen(heard) {
    this._listeners.add(heard);
    return () => this._listeners.delete(heard);
  }

  /** Begin anew with all that there is. */
  snapshot(all) {
    batch(() => {
      this.boot = all.boot;
      this.sequence = all.sequence;
      this.gateway.value = all.gateway;
      const devices = all.devices ?? [];
      const jobs = all.jobs ?? [];
      meet(devices.map((card) => card.id));
      forget(this._devices, new Set(devices.map((card) => card.id)));
      forget(this._jobs, new Set(jobs.map((card) => card.id)));
      this._tiles.clear();
      this._take({ at: all.at, devices, jobs, tiles: all.tiles ?? [] });
    });
  }

  /**
   * Apply an update. Returns false if it belongs to another run of the gateway; then a snapshot is
   * needed. The dashboard joins updates, so numbers may be left out, and sends none out of order.
   */
  update(update) {
    if (update.boot !== this.boot) return false;
    if (update.sequence <= this.sequence) return true; // heard already
    batch(() => {
      this.sequence = update.sequence;
      if (update.gateway) this.gateway.value = update.gateway;
      for (const id of update.gone_devices ?? []) this.device(id).value = undefined;
      for (const id of update.gone_jobs ?? []) this.job(id).value = undefined;
      this._take(update);
    });
    return true;
  }

  /** Take a card that an answer brought, unless a newer one is here. */
  takeJob(card) {
    const known = this.job(card.id).peek();
    if (known && ENDED.has(known.state) && !ENDED.has(card.state)) return;
    batch(() => this._take({ jobs: [card] }));
  }

  _take({ at, devices = [], jobs = [], tiles = [] }) {
    if (at) this.at.value = at;
    const before = new Map(jobs.map((card) => [card.id, this.job(card.id).peek()]));
    for (const card of devices) this.device(card.id).value = card;
    for (const card of jobs) this.job(card.id).value = card;
    for (const update of tiles) this._takeTiles(update);
    this._list();
    for (const heard of this._listeners) heard({ devices, jobs, tiles, before });
  }

  _takeTiles(update) {
    if (!this._tiles.has(update.job)) this._tiles.set(update.job, new TileMap());
    this._tiles.get(update.job).apply(update);
  }

  _list() {
    keep(this.deviceIds, present(this._devices).map((card) => card.id).sort());
    const jobs = present(this._jobs).sort(
      (a, b) => b.accepted_at - a.accepted_at || (a.id < b.id ? 1 : -1),
    );
    keep(this.jobIds, jobs.map((card) => card.id));
    let surplus = this._tiles.size - KEPT_TILES;
    for (const id of this._tiles.keys()) {
      const card = this.job(id).peek();
      if (!card || (hasEnded(card) && surplus > 0)) this._tiles.delete(id);
      surplus--;
    }
  }
}

/** What is worth saying aloud after a message, for people who do not see the page. */
export function announcements({ devices, jobs, before }, wasActive) {
  const said = [];
  for (const card of jobs) {
    const old = before.get(card.id);
    if (!old || old.state === card.state || !ENDED.has(card.state)) continue;
    said.push(`${card.name || "Job"} is ${card.state}.`);
  }
  for (const card of devices) {
    const old = wasActive.get(card.id);
    const grave = ["quarantined", "silent", "offline", "incompatible"];
    if (old !== undefined && old !== card.activity && grave.includes(card.activity)) {
      said.push(`${card.id}: ${card.sentence}`);
    }
    wasActive.set(card.id, card.activity);
  }
  return said;
}

export function hasEnded(card) {
  return card !== undefined && ENDED.has(card.state);
}

function signalOf(map, id) {
  if (!map.has(id)) map.set(id, signal(undefined));
  return map.get(id);
}

function present(map) {
  return [...map.values()].map((one) => one.peek()).filter((card) => card !== undefined);
}

function forget(map, kept) {
  for (const [id, one] of map) if (!kept.has(id)) one.value = undefined;
}

/** Change a list's signal only if the list is another one. */
function keep(list, ids) {
  const old = list.peek();
  if (old.length !== ids.length || ids.some((id, at) => id !== old[at])) list.value = ids;
}
