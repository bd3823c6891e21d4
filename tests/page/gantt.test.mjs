import assert from "node:assert/strict";
import { test } from "node:test";
import { barAt, neighbour } from "../../fogmqtt/dashboard/static/views/gantt.js";

const bar = (begin, end) => ({ begin, end, label: `${begin}` });
const ROWS = [
  { name: "a", bars: [bar(0, 1), bar(2, 3)] },
  { name: "empty", bars: [] },
  { name: "b", bars: [bar(0.5, 1.5), bar(2.2, 4)] },
];

test("a bar is found at its time, with some slack for thin ones", () => {
  assert.equal(barAt(ROWS[0], 2.5), ROWS[0].bars[1]);
  assert.equal(barAt(ROWS[0], 1.5), null);
  assert.equal(barAt(ROWS[0], 1.05, 0.1), ROWS[0].bars[0]);
});

test("arrow keys lead to the next bar and to the nearest one of the next row", () => {
  const [first, second] = ROWS[0].bars;
  assert.equal(neighbour(ROWS, null, "ArrowRight")[0], first);
  assert.equal(neighbour(ROWS, first, "ArrowRight")[0], second);
  assert.equal(neighbour(ROWS, second, "ArrowRight")[0], second);
  assert.equal(neighbour(ROWS, second, "ArrowDown")[0], ROWS[2].bars[1]);
  assert.equal(neighbour(ROWS, ROWS[2].bars[1], "ArrowUp")[0], second);
  assert.deepEqual(neighbour([], null, "ArrowUp"), [null, null]);
});
