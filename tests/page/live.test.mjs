import assert from "node:assert/strict";
import { test } from "node:test";
import { AGES, drops, Live, pictureWidth, unpack, word } from "../../fogmqtt/dashboard/static/model/live.js";

class Socket {
  sent = [];
  readyState = 1;
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
    this.onclose();
  }
}

function frame(stream, bytes = [1, 2, 3]) {
  const text = new TextEncoder().encode(JSON.stringify({ stream, seq: 7 }));
  const packed = new Uint8Array([text.length >> 8, text.length & 255, ...text, ...bytes]);
  return packed.buffer;
}

function opened() {
  const sockets = [];
  const live = new Live(() => sockets.at(sockets.push(new Socket()) - 1));
  live.start();
  sockets[0].onopen();
  return { live, sockets };
}

const state = (p99) => ({ age_s: { p99 }, fps_in: p99, fps_out: p99 / 2, dropped: {}, late: 0, failed: 0 });
const turn = () => new Promise(setImmediate);

test("a frame is its text and its picture", () => {
  const { head, jpeg } = unpack(frame("yard"));
  assert.deepEqual([head.stream, head.seq, [...jpeg]], ["yard", 7, [1, 2, 3]]);
});

test("the next frame is asked for when the one before is drawn, and not earlier", async () => {
  const { live, sockets } = opened();
  let drawn;
  live.show("yard", 640, () => new Promise((resolve) => (drawn = resolve)));
  assert.deepEqual(sockets[0].sent.at(-1), { show: { yard: 640 } });
  sockets[0].onmessage({ data: frame("yard") });
  await turn();
  assert.deepEqual(sockets[0].sent.at(-1), { show: { yard: 640 } });
  drawn();
  await turn();
  assert.deepEqual(sockets[0].sent.at(-1), { ready: "yard" });
  live.stop();
});

test("a picture that cannot be drawn does not stop its stream", async () => {
  const { live, sockets } = opened();
  live.show("yard", 640, () => Promise.reject(new Error("damaged")));
  await sockets[0].onmessage({ data: frame("yard") });
  assert.deepEqual(sockets[0].sent.at(-1), { ready: "yard" });
  live.stop();
});

test("what is shown already is not said again", () => {
  const { live, sockets } = opened();
  for (let round = 0; round < 3; round++) live.show("yard", 640, async () => {});
  live.show("gate", 320, async () => {});
  live.hide("yard");
  live.hide("yard");
  const shown = sockets[0].sent.map((one) => Object.keys(one.show).join());
  assert.deepEqual(shown, ["", "yard", "yard,gate", "gate"]);
  live.stop();
});

test("a new socket is told what is shown", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { live, sockets } = opened();
  live.show("yard", 640, async () => {});
  sockets[0].close();
  assert.equal(live.isAway.value, true);
  context.mock.timers.tick(1000);
  sockets[1].onopen();
  assert.equal(live.isAway.value, false);
  assert.deepEqual(sockets[1].sent, [{ show: { yard: 640 } }]);
  live.stop();
  context.mock.timers.tick(60_000);
  assert.equal(sockets.length, 2);
});

test("the ages and rates of the last minute are kept", () => {
  const { live, sockets } = opened();
  for (let second = 0; second < 100; second++) {
    sockets[0].onmessage({ data: JSON.stringify({ streams: [{ name: "yard", state: state(second) }] }) });
  }
  assert.equal(live.ages.get("yard").length, AGES);
  assert.equal(live.ages.get("yard").at(-1), 99);
  assert.equal(live.rates.get("yard").length, AGES);
  assert.deepEqual(live.rates.get("yard").at(-1), [99, 49.5]);
  live.stop();
});

test("drops are named with their reason, the most first", () => {
  const counts = { dropped: { decimated: 0, superseded: 5, gap: 1 }, late: 9, failed: 0 };
  assert.deepEqual(drops(counts), [["late", 9], ["replaced by newer ones", 5], ["damaged or lost with the camera", 1]]);
});

test("a picture is as wide as the screen shows it, in steps", () => {
  assert.equal(pictureWidth(300, 1), 320);
  assert.equal(pictureWidth(310, 2), 640);
  assert.equal(pictureWidth(0, 1), 160);
  assert.equal(pictureWidth(9000, 3), 3840);
});

test("the state of a stream is a word", () => {
  assert.equal(word({ status: "online", state: { source: "lost" } }), "Away");
  assert.equal(word({ status: "online", state: { source: "connected" } }), "Live");
  assert.equal(word({ status: "disabled", tone: "quiet" }), "Off");
  assert.equal(word({ status: "offline", tone: "bad" }), "Cannot run");
});
