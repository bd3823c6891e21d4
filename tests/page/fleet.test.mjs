import assert from "node:assert/strict";
import { test } from "node:test";
import { announcements, Fleet } from "../../fogmqtt/dashboard/static/model/fleet.js";

const device = (id, more = {}) => ({ id, activity: "idle", sentence: `${id} waits.`, ...more });
const job = (id, more = {}) => ({ id, name: `${id}.jpg`, state: "running", accepted_at: 1, ...more });
const snapshot = (more = {}) => ({ boot: "b", sequence: 1, at: 10, gateway: { id: "mariem" }, devices: [device("eya")], jobs: [job("one")], tiles: [], ...more });
const update = (sequence, more = {}) => ({ boot: "b", sequence, at: 10 + sequence, ...more });

function followed(more) {
  const fleet = new Fleet();
  fleet.snapshot(snapshot(more));
  return fleet;
}

test("an update changes only the cards that it names", () => {
  const fleet = followed({ devices: [device("eya"), device("manar")] });
  let drawn = 0;
  fleet.device("manar").subscribe(() => drawn++);
  fleet.update(update(2, { devices: [device("eya", { activity: "working" })] }));
  assert.equal(fleet.device("eya").value.activity, "working");
  assert.equal(drawn, 1);
});

test("an update of another run of the gateway asks for a snapshot", () => {
  assert.equal(followed().update({ ...update(2), boot: "c" }), false);
});

test("numbers that the dashboard joined are no gap, and old ones change nothing", () => {
  const fleet = followed();
  assert.equal(fleet.update(update(5, { jobs: [job("one", { done: 5 })] })), true);
  assert.equal(fleet.update(update(4, { jobs: [job("one", { done: 4 })] })), true);
  assert.equal(fleet.job("one").value.done, 5);
});

test("what is gone leaves the lists", () => {
  const fleet = followed();
  fleet.update(update(2, { gone_devices: ["eya"], gone_jobs: ["one"] }));
  assert.deepEqual([fleet.deviceIds.value, fleet.jobIds.value], [[], []]);
});

test("a new snapshot forgets what it does not name", () => {
  const fleet = followed();
  fleet.snapshot(snapshot({ boot: "c", devices: [device("manar")], jobs: [] }));
  assert.deepEqual([fleet.deviceIds.value, fleet.jobIds.value], [["manar"], []]);
});

test("the newest jobs come first, and only those that run are running", () => {
  const fleet = followed({ jobs: [job("old", { accepted_at: 1, state: "done" }), job("new", { accepted_at: 2 })] });
  assert.deepEqual(fleet.jobIds.value, ["new", "old"]);
  assert.deepEqual(fleet.running.value, ["new"]);
});

test("an answer that is late does not bring an ended job back to life", () => {
  const fleet = followed({ jobs: [job("one", { state: "done" })] });
  fleet.takeJob(job("one", { state: "running" }));
  assert.equal(fleet.job("one").value.state, "done");
});

test("tiles of a job that ended stay to show who did what, for the newest jobs", () => {
  const fleet = followed();
  const tiles = (id) => ({ job: id, version: 1, stage: 1, height: 2, width: 2, devices: [], cores: { 0: [0, 0, 2, 2] }, rows: [] });
  for (let at = 0; at < 40; at++) {
    fleet.update(update(2 * at + 2, { jobs: [job(`j${at}`)], tiles: [tiles(`j${at}`)] }));
    fleet.update(update(2 * at + 3, { jobs: [job(`j${at}`, { state: "done" })] }));
  }
  assert.ok(fleet.tiles("j39"));
  assert.equal(fleet.tiles("j0"), undefined);
});

test("ends of jobs and faults of devices are said aloud, and nothing else", () => {
  const fleet = followed();
  const heard = [];
  const active = new Map();
  fleet.listen((message) => heard.push(...announcements(message, active)));
  fleet.update(update(2, { devices: [device("eya", { activity: "working" })], jobs: [job("one", { done: 3 })] }));
  fleet.update(update(3, { devices: [device("eya", { activity: "silent", sentence: "Silent for 5 s." })], jobs: [job("one", { state: "done" })] }));
  assert.deepEqual(heard, ["one.jpg is done.", "eya: Silent for 5 s."]);
});
