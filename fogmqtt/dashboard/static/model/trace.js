// A job's trace, which is a file for Perfetto, as rows of bars: a row for each worker of a device.

import { bytes as sizeOf } from "./format.js";

/** Phases of an attempt in their order: what people call them, and whose time it is. */
const PHASES = {
  wait: ["waits at the gateway", "wait"],
  cut: ["is cut", "gateway"],
  encode: ["is encoded", "gateway"],
  queue: ["waits for the link", "wait"],
  wire_out: ["on the way to the device", "wire"],
  device_queue: ["waits at the device", "wait"],
  start: ["the worker starts", "work"],
  decode: ["is decoded", "work"],
  compute: ["is computed", "work"],
  encode_result: ["the result is encoded", "work"],
  device: ["at the device", "work"],
  wire_back: ["on the way back", "wire"],
  check: ["is checked", "gateway"],
  merge_queue: ["waits to be merged", "wait"],
  paste: ["is pasted", "gateway"],
};
const ORDER = Object.keys(PHASES);
/** The first phase of the slices on a kind of track. */
const FIRST = { cut: "cut", tiles: "wire_out", worker: "start", paste: "paste" };

const ENDINGS = {
  kept: "its result counts",
  check: "its result was compared",
  running: "it had not ended",
  "another was first": "another device was first",
};
const GOOD = new Set(["kept", "check"]);
const HARMLESS = new Set(["another was first", "taken back", "cancelled", "running"]);

/** `{rows: [{name, device, kind, bars}], seconds, leftOut}`; times in seconds since the beginning. */
export function parseTrace(json) {
  const events = json.traceEvents ?? [];
  const names = trackNames(events);
  const slices = events.filter((event) => event.ph === "X");
  const rows = new Map();
  const rowOf = (event) => {
    const key = `${event.pid} ${event.tid}`;
    if (!rows.has(key)) rows.set(key, newRow(names, event));
    return rows.get(key);
  };
  for (const event of slices) {
    if (event.cat === "phase" || event.cat === "job") continue; // told by the bars within or around
    const row = rowOf(event);
    row.bars.push(event.args?.attempt === undefined ? stepBar(event) : tileBar(event, row));
  }
  const sorted = [...rows.values()].sort((a, b) => a.pid - b.pid || a.tid - b.tid);
  for (const row of sorted) row.bars.sort((a, b) => a.begin - b.begin);
  const about = json.otherData?.jobs?.[0];
  const last = Math.max(0, ...slices.map((event) => (event.ts + event.dur) / 1e6));
  return { rows: sorted, seconds: about?.seconds || last || 1, leftOut: about?.attempts_left_out ?? 0 };
}

/**
 * Rows for the filters; rows without bars are left out. Unless all tracks are wanted, these are the
 * steps of the job, the workers, and what never reached one.
 */
export function filtered(rows, { device = "", show = "" }) {
  const worked = new Set(bars(rows.filter((row) => row.kind === "worker")).map((bar) => bar.key));
  const isShown = (row) => (bar) => {
    if (show === "all") return true;
    if (row.kind === "steps") return show === "";
    const isHere = row.kind === "worker" || (row.kind === "tiles" && !worked.has(bar.key));
    return isHere && (show !== "troubled" || bar.troubled);
  };
  return rows
    .filter((row) => !device || row.device === device)
    .map((row) => ({ ...row, bars: row.bars.filter(isShown(row)) }))
    .filter((row) => row.bars.length > 0);
}

/** Each attempt of a tile, once. */
export function attemptsOf(rows, tile) {
  const found = new Map(bars(rows).filter((bar) => bar.tile === tile && bar.device).map((bar) => [bar.key, bar]));
  return [...found.values()].sort((a, b) => a.attempt - b.attempt);
}

function bars(rows) {
  return rows.flatMap((row) => row.bars);
}

function trackNames(events) {
  const names = new Map();
  for (const event of events) {
    if (event.ph !== "M") continue;
    if (event.name === "process_name") names.set(`${event.pid}`, event.args.name);
    if (event.name === "thread_name") names.set(`${event.pid} ${event.tid}`, event.args.name);
  }
  return names;
}

function newRow(names, { pid, tid }) {
  const process = names.get(`${pid}`) ?? String(pid);
  const track = names.get(`${pid} ${tid}`) ?? String(tid);
  const [, type, name] = /^(gateway|device) (.*)$/.exec(process) ?? [null, "", process];
  const word = track.split(" ", 1)[0];
  const kind = word in FIRST ? word : "steps";
  const device = type === "device" ? name : "";
  return { name: device ? `${device} ${track}` : track, device, kind, pid, tid, bars: [] };
}

function stepBar(event) {
  const begin = event.ts / 1e6;
  const key = `${event.name}@${begin.toFixed(6)}`;
  return { begin, end: begin + event.dur / 1e6, label: event.name, story: "A step of the job on the gateway.", key, tone: "", troubled: false };
}

function tileBar(event, { kind, device }) {
  const { attempt, end, hedge, core, ms = {}, reason = "", bytes } = event.args;
  const tile = Number(/\d+/.exec(event.name)?.[0] ?? -1);
  const begin = event.ts / 1e6;
  const isGood = GOOD.has(end);
  return {
    begin,
    end: begin + event.dur / 1e6,
    label: `Tile ${tile}${attempt > 1 ? `, attempt ${attempt}` : ""}${hedge ? ", second copy" : ""}`,
    story: [core, bytes && `${sizeOf(bytes.out)} out, ${sizeOf(bytes.back)} back`, ENDINGS[end] ?? end, reason].filter(Boolean).join(" · "),
    ending: ENDINGS[end] ?? end,
    key: `${tile}.${attempt}`,
    tile,
    attempt,
    device,
    tone: isGood ? (hedge ? "hedge" : "") : HARMLESS.has(end) ? "hedge" : "lost",
    troubled: !isGood || Boolean(hedge) || attempt > 1,
    parts: partsOf(ms, begin, FIRST[kind]),
  };
}

/** All phases of the attempt with their times; `first` is the phase that begins at `begin`. */
function partsOf(ms, begin, first) {
  const before = ORDER.slice(0, ORDER.indexOf(first)).reduce((sum, name) => sum + (ms[name] ?? 0), 0);
  let at = begin - before / 1000;
  return ORDER.filter((name) => ms[name] > 0).map((name) => {
    const part = { name: PHASES[name][0], tone: PHASES[name][1], begin: at, end: at + ms[name] / 1000 };
    at = part.end;
    return part;
  });
}
