import assert from "node:assert/strict";
import { test } from "node:test";
import { format, parse, token } from "../../fogmqtt/dashboard/static/model/route.js";

test("a place in the address comes back from the address", () => {
  const place = { view: "jobs", job: "a.b-c", tab: "timeline", query: { device: "eya", tile: "4.1" } };
  assert.deepEqual(parse(format(place)), place);
});

test("a pipeline in the address keeps its signs", () => {
  const place = { view: "submit", job: "", tab: "", query: { pipeline: "gray | canny low=50 & 1%" } };
  assert.deepEqual(parse(format(place)), place);
});

test("empty filters leave no trace in the address", () => {
  assert.equal(format({ view: "history", query: { text: "", state: null } }), "#/history");
});

test("an unknown or damaged address leads to the fleet", () => {
  for (const fragment of ["", "#", "#/nowhere", "#/%E0%A4%A", "#/../etc"]) assert.equal(parse(fragment).view, "fleet");
});

test("a job without a name leads to all jobs", () => {
  assert.equal(parse("#/jobs").view, "history");
});

test("a token is found in its own kind of address only", () => {
  assert.equal(token("#token=ab%2Fc"), "ab/c");
  assert.equal(token("#/fleet?token=abc"), "");
});
