import assert from "node:assert/strict";
import { test } from "node:test";
import { Viewport } from "../../fogmqtt/dashboard/static/model/viewport.js";

test("a picture is seen whole at first", () => {
  assert.deepEqual(new Viewport(4000, 3000, 800, 600).area(), [0, 0, 3000, 4000]);
});

test("zooming keeps the place under the pointer", () => {
  const view = new Viewport(4000, 3000, 800, 600);
  const before = view.toPicture(200, 150);
  view.zoom(8, 200, 150);
  assert.deepEqual(view.toPicture(200, 150).map(Math.round), before.map(Math.round));
});

test("nobody can zoom out beyond the whole, or lose the picture", () => {
  const view = new Viewport(4000, 3000, 800, 600);
  view.zoom(4);
  view.move(99_999, -99_999);
  const [top, left, height, width] = view.area();
  assert.ok(left === 0 && top + height === 3000 && width === 1000);
  view.zoom(0.001);
  assert.ok(view.isFit);
});

test("a single pixel can be seen large", () => {
  const view = new Viewport(4000, 3000, 800, 600);
  view.zoom(1e6, 0, 0);
  assert.ok(view.scale >= 32);
  assert.deepEqual(view.area().slice(0, 2), [0, 0]);
});

test("another size of the screen keeps the whole whole", () => {
  const view = new Viewport(4000, 3000, 800, 600);
  view.resize(400, 300);
  assert.ok(view.isFit);
  assert.deepEqual(view.area(), [0, 0, 3000, 4000]);
});

test("a small picture in a large box is in the middle", () => {
  const view = new Viewport(10, 10, 400, 200);
  assert.deepEqual(view.toScreen(5, 5), [200, 100]);
});
