import assert from "node:assert/strict";
import { test } from "node:test";
import { LivePicture } from "../../fogmqtt/dashboard/static/views/live_picture.js";

/** What the picture uses of a browser: frames and answers come when the test says so. */
function browser() {
  const made = { frames: [], answers: [], resized: [], bitmaps: [] };
  const context = new Proxy({}, { get: () => () => {}, set: () => true });
  const element = () => ({ setAttribute() {}, remove() {}, append() {}, getContext: () => context, clientWidth: 40, clientHeight: 20 });
  Object.assign(globalThis, {
    document: { createElement: element },
    devicePixelRatio: 1,
    matchMedia: () => ({ matches: false }),
    requestAnimationFrame: (draw) => made.frames.push(draw),
    cancelAnimationFrame: () => {},
    ResizeObserver: class {
      constructor(resized) {
        made.resized.push(resized);
      }
      observe() {}
      disconnect() {}
    },
    fetch: (url) => new Promise((answer, fail) => made.answers.push({ url, answer, fail })),
    createImageBitmap: async () => {
      const bitmap = { width: 40, height: 20, close: () => (bitmap.isClosed = true) };
      made.bitmaps.push(bitmap);
      return bitmap;
    },
  });
  return { ...made, box: element(), draw: () => made.frames.splice(0).forEach((one) => one(0)) };
}

/** Two tiles, of which the first is done. */
function tiles() {
  const finished = [0];
  return { width: 40, height: 20, count: 2, plan: 1, status: [4, 3], attempt: [1, 1], deviceOf: () => "eya",
    area: (tile) => [0, 20 * tile, 20, 20], takeChanged: () => [], takeFinished: () => finished.splice(0), finished };
}

const settled = () => new Promise((done) => setTimeout(done, 5));
const picture = { ok: true, status: 200, blob: async () => ({}) };

function opened() {
  const screen = browser();
  const map = tiles();
  const shown = new LivePicture(screen.box, { tiles: () => map, listen: () => () => {} }, "j1");
  screen.draw();
  const [original, result] = screen.answers;
  assert.match(original.url, /of=original/);
  assert.match(result.url, /of=result/);
  return { screen, map, shown, original, result };
}

/** Promises that nobody waits for and that failed: the page's tests in a browser fail of them. */
const failed = [];
process.on("unhandledRejection", (problem) => failed.push(problem));

test("an original that comes while the size changes is drawn with the next frame", async () => {
  const { screen, shown, original } = opened();
  shown.redraw();
  original.answer(picture);
  await settled();
  assert.deepEqual(failed, []);
  screen.draw();
  await settled();
  assert.deepEqual(failed, []);
  assert.equal(screen.answers.length, 2, "the original is here, and the first result is on its way");
});

test("pixels that come while the size changes are asked for again, also those of later tiles", async () => {
  const { screen, map, shown, result } = opened();
  map.status[1] = 4;
  map.finished.push(1);
  shown._schedule();
  screen.draw();
  shown.redraw();
  result.answer(picture);
  await settled();
  assert.deepEqual(failed, []);
  assert.ok(screen.bitmaps.at(-1).isClosed);
  screen.draw();
  await settled();
  assert.match(screen.answers.at(-1).url, /area=0%2C0%2C20%2C40/);
  screen.answers.at(-1).answer(picture);
  await settled();
  assert.equal(shown.pasted, 2);
  assert.deepEqual(failed, []);
});

test("what comes after the view was left is let go", async () => {
  const { screen, shown, original, result } = opened();
  shown.close();
  original.answer(picture);
  result.answer(picture);
  await settled();
  assert.ok(screen.bitmaps.length === 2 && screen.bitmaps.every((one) => one.isClosed));
  assert.deepEqual(failed, []);
});

test("tiles of a plan that is over are not asked for again", async (context) => {
  const { screen, map, shown, result } = opened();
  context.mock.timers.enable({ apis: ["setTimeout"] });
  result.fail(new Error("the connection broke"));
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  Object.assign(map, { plan: 2, count: 1, status: [3] });
  shown._schedule();
  screen.draw();
  context.mock.timers.tick(1000);
  assert.equal(screen.answers.length, 2);
});
