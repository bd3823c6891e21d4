import assert from "node:assert/strict";
import { test } from "node:test";
import { DONE, RUNNING, SPLIT, TileMap, WAITING } from "../../fogmqtt/dashboard/static/model/tiles.js";

const FOUR = { 0: [0, 0, 10, 10], 1: [0, 10, 10, 10], 2: [10, 0, 10, 10], 3: [10, 10, 10, 10] };

function update(more) {
  return { job: "j", version: 1, stage: 1, height: 20, width: 20, devices: [], cores: {}, rows: [], ...more };
}

function filled() {
  const map = new TileMap();
  map.apply(update({ cores: FOUR, rows: [[0, WAITING, -1, 0], [1, WAITING, -1, 0], [2, WAITING, -1, 0], [3, WAITING, -1, 0]] }));
  map.takeChanged();
  return map;
}

test("only tiles that changed are drawn", () => {
  const map = filled();
  map.apply(update({ version: 2, devices: ["eya"], rows: [[2, RUNNING, 0, 1]] }));
  assert.deepEqual(map.takeChanged(), [2]);
  assert.deepEqual(map.takeChanged(), []);
});

test("devices keep their place, although each update numbers them anew", () => {
  const map = filled();
  map.apply(update({ version: 2, devices: ["eya"], rows: [[0, RUNNING, 0, 1]] }));
  map.apply(update({ version: 3, devices: ["manar", "eya"], rows: [[1, RUNNING, 0, 1], [2, RUNNING, 1, 1]] }));
  assert.deepEqual([0, 1, 2, 3].map((tile) => map.deviceOf(tile)), ["eya", "manar", "eya", ""]);
});

test("a finished tile is told once, and not if its result was taken back", () => {
  const map = filled();
  map.apply(update({ version: 2, devices: ["eya"], rows: [[0, DONE, 0, 1], [1, DONE, 0, 1]] }));
  map.apply(update({ version: 3, rows: [[1, WAITING, -1, 1]] }));
  assert.deepEqual(map.takeFinished(), [0]);
  assert.deepEqual(map.takeFinished(), []);
  assert.equal(map.done, 1);
});

test("another stage begins with tiles of its own", () => {
  const map = filled();
  const plan = map.plan;
  map.apply(update({ version: 2, stage: 2, cores: { 0: [0, 0, 20, 20] }, rows: [[0, WAITING, -1, 0]] }));
  assert.deepEqual([map.count, map.plan], [1, plan + 1]);
});

test("an older version changes nothing", () => {
  const map = filled();
  map.apply(update({ version: 5, devices: ["eya"], rows: [[0, DONE, 0, 1]] }));
  map.apply(update({ version: 4, rows: [[0, WAITING, -1, 0]] }));
  assert.equal(map.status[0], DONE);
});

test("halves take the place of a tile that was split", () => {
  const map = filled();
  map.apply(update({ version: 2, cores: { 4: [0, 0, 5, 10], 5: [5, 0, 5, 10] }, rows: [[0, SPLIT, -1, 1], [4, WAITING, -1, 0], [5, WAITING, -1, 0]] }));
  assert.deepEqual([map.at(2, 2), map.at(7, 2), map.at(2, 12)], [4, 5, 1]);
});

test("the share of each device counts what it has and what it did", () => {
  const map = filled();
  map.apply(update({ version: 2, devices: ["eya", "manar"], rows: [[0, DONE, 0, 1], [1, RUNNING, 0, 1], [2, DONE, 1, 2]] }));
  assert.deepEqual(Object.fromEntries(map.shares()), { eya: { held: 1, done: 1 }, manar: { held: 0, done: 1 } });
  assert.equal(map.retried, 1);
});

test("ten thousand tiles are applied and taken in a moment", () => {
  const cores = Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [at, [Math.floor(at / 100) * 10, (at % 100) * 10, 10, 10]]));
  const devices = Array.from({ length: 64 }, (_, at) => `board-${at}`);
  const map = new TileMap();
  map.apply(update({ height: 1000, width: 1000, cores, devices }));
  const rows = Array.from({ length: 10_000 }, (_, at) => [at, RUNNING, at % 64, 1]);
  const begun = process.cpuUsage();
  map.apply(update({ version: 2, height: 1000, width: 1000, devices, rows }));
  assert.equal(map.takeChanged().length, 10_000);
  const { user, system } = process.cpuUsage(begun);
  assert.ok(user + system < 160_000, "microseconds of the processor: ten frames at most");
});
