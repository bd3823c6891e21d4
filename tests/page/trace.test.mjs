import assert from "node:assert/strict";
import { test } from "node:test";
import { attemptsOf, filtered, parseTrace } from "../../fogmqtt/dashboard/static/model/trace.js";

const name = (pid, text, tid) => ({ ph: "M", name: tid ? "thread_name" : "process_name", pid, tid, args: { name: text } });
const slice = (pid, tid, text, begin, seconds, more = {}) => ({ ph: "X", pid, tid, name: text, cat: "kept", ts: begin * 1e6, dur: seconds * 1e6, args: {}, ...more });
const tile = (pid, tid, number, begin, seconds, args = {}) =>
  slice(pid, tid, `tile ${number}`, begin, seconds, { args: { attempt: 1, end: "kept", hedge: false, ms: { cut: 10, wire_out: 90, compute: 200, wire_back: 50 }, ...args } });

const LOST = { attempt: 1, end: "device lost", hedge: false, ms: { cut: 10, wire_out: 90, device: 400 } };
const TRACE = {
  traceEvents: [
    name(1, "gateway mariem"), name(1, "job harbour", 1), name(1, "cut and encode", 20000),
    name(2, "device eya"), name(2, "tiles on their way", 1000000), name(2, "worker 0", 1),
    name(3, "device manar"), name(3, "tiles on their way", 1000000),
    slice(1, 1, "harbour", 0, 1.25, { cat: "job" }),
    slice(1, 1, "decode", 0, 0.1),
    tile(1, 20000, 4, 0.1, 0.01),
    tile(2, 1000000, 4, 0.11, 0.34),
    slice(2, 1000000, "wire_out", 0.11, 0.09, { cat: "phase" }),
    tile(2, 1, 4, 0.2, 0.2),
    tile(3, 1000000, 5, 0.11, 0.49, LOST),
    tile(2, 1, 5, 0.7, 0.2, { attempt: 2 }),
  ],
  otherData: { jobs: [{ seconds: 1.25, attempts_left_out: 3 }] },
};

test("the rows are the steps, the workers, and what never reached one", () => {
  const { rows } = parseTrace(TRACE);
  const shown = filtered(rows, {}).map((row) => [row.name, row.bars.map((bar) => bar.label)]);
  assert.deepEqual(shown, [
    ["job harbour", ["decode"]],
    ["eya worker 0", ["Tile 4", "Tile 5, attempt 2"]],
    ["manar tiles on their way", ["Tile 5"]],
  ]);
});

test("only tiles with trouble, and only those of a device", () => {
  const { rows } = parseTrace(TRACE);
  const keys = (filters) => filtered(rows, filters).flatMap((row) => row.bars.map((bar) => bar.key));
  assert.deepEqual(keys({ show: "troubled" }), ["5.2", "5.1"]);
  assert.deepEqual(keys({ show: "troubled", device: "manar" }), ["5.1"]);
  assert.equal(filtered(rows, { show: "all" }).length, 5);
});

test("each bar that can be chosen has a key of its own, steps of the job, too", () => {
  const keys = filtered(parseTrace(TRACE).rows, {}).flatMap((row) => row.bars.map((bar) => bar.key));
  assert.equal(new Set(keys).size, keys.length);
  assert.ok(keys.every(Boolean));
});

test("the phases of an attempt follow each other on the clock of the trace", () => {
  const [, worker] = filtered(parseTrace(TRACE).rows, {});
  const parts = worker.bars[0].parts.map((part) => [part.name, Math.round(part.begin * 1000), Math.round(part.end * 1000)]);
  assert.deepEqual(parts, [["is cut", 100, 110], ["on the way to the device", 110, 200], ["is computed", 200, 400], ["on the way back", 400, 450]]);
});

test("the story of a tile has each attempt once, the first one first", () => {
  const attempts = attemptsOf(parseTrace(TRACE).rows, 5);
  assert.deepEqual(attempts.map((one) => [one.attempt, one.device, one.ending]), [[1, "manar", "device lost"], [2, "eya", "its result counts"]]);
});

test("length and what was left out are told by the trace", () => {
  const { seconds, leftOut } = parseTrace(TRACE);
  assert.deepEqual([seconds, leftOut], [1.25, 3]);
});

test("a trace without anything is empty and no error", () => {
  assert.deepEqual(parseTrace({}), { rows: [], seconds: 1, leftOut: 0 });
});
