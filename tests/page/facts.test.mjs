import assert from "node:assert/strict";
import { test } from "node:test";
import { figures, histogram, tables } from "../../fogmqtt/dashboard/static/model/facts.js";

test("codes are shapes with their text, and a table without corners", () => {
  const corners = [[1, 2], [9, 2], [9, 8], [1, 8]];
  const [table] = tables({ codes: [{ kind: "qr", text: "hello", corners }], left_out: 0 });
  assert.deepEqual(table.columns, ["kind", "text"]);
  assert.deepEqual(table.rows, [["qr", "hello"]]);
  assert.deepEqual(table.shapes, [{ points: corners, label: "qr hello" }]);
});

test("components are boxes", () => {
  const [table] = tables({ count: 1, components: [{ number: 1, area: 6, left: 2, top: 3, width: 3, height: 2, centroid: [3, 3.5] }] });
  assert.deepEqual(table.shapes[0].points, [[2, 3], [5, 3], [5, 5], [2, 5]]);
});

test("objects of a network are boxes with their class", () => {
  const [table] = tables({ objects: [{ class: "face", score: 0.93124, box: [1, 2, 3, 4] }] });
  assert.equal(table.shapes[0].label, "face");
  assert.equal(table.rows[0][1], "0.9312");
});

test("lines without ends are listed and not drawn", () => {
  const [table] = tables({ lines: [{ rho: 1.5, theta: 45, votes: 310 }] });
  assert.deepEqual(table.shapes, [null]);
});

test("facts of a plug-in that nobody knows are a table, with boxes if they look so", () => {
  const [table] = tables({ stars: [{ left: 1, top: 1, width: 2, height: 2, magnitude: 3 }] });
  assert.equal(table.shapes[0].points.length, 4);
});

test("single values are figures, and nothing left out is not said", () => {
  assert.deepEqual(figures({ count: 0, left_out: 0, pixels: 240000, codes: [] }), [["count", "0"], ["pixels", "240000"]]);
});

test("a histogram is known by its bins", () => {
  assert.deepEqual(histogram({ bins: 2, values: 128, channels: [[1, 2]] }), [[1, 2]]);
  assert.equal(histogram({ channels: [{ min: 0 }] }), null);
});

test("empty and missing facts give nothing", () => {
  assert.deepEqual([tables(null), tables({}), tables({ codes: [] }), figures(undefined)], [[], [], [], []]);
});
