import assert from "node:assert/strict";
import { test } from "node:test";
import * as pipeline from "../../fogmqtt/dashboard/static/model/pipeline.js";

const LOW = { name: "low", type: "float", required: false, default: 50, minimum: 0, maximum: 1000, choices: [] };

test("the text of a pipeline comes back from its steps", () => {
  const text = "gray | gaussian ksize=5 | canny low=50 high=150";
  assert.equal(pipeline.format(pipeline.parse(text)), text);
});

test("an empty text has no steps", () => {
  assert.deepEqual(pipeline.parse("  "), []);
});

test("words that are no parameter are kept for the gateway to judge", () => {
  assert.equal(pipeline.format(pipeline.parse("gray wrong | x")), "gray wrong | x");
});

test("a value that equals the default is not written", () => {
  const steps = pipeline.parse("canny low=60 high=150");
  assert.equal(pipeline.format(pipeline.withValue(steps, 0, LOW, "50")), "canny high=150");
  assert.equal(pipeline.format(pipeline.withValue(steps, 0, LOW, "70")), "canny low=70 high=150");
});

test("a value cannot begin another step", () => {
  const steps = pipeline.withValue(pipeline.parse("codes"), 0, { name: "kinds", default: "qr" }, "bar | blur x");
  assert.equal(pipeline.format(steps), "codes kinds=barblurx");
});

test("a value outside its range gets a complaint", () => {
  assert.equal(pipeline.complaint(LOW, "-1"), "0 or more");
  assert.equal(pipeline.complaint(LOW, "2000"), "1000 or less");
  assert.equal(pipeline.complaint(LOW, "many"), "a number");
  assert.equal(pipeline.complaint({ ...LOW, type: "int" }, "1.5"), "a whole number");
  assert.equal(pipeline.complaint({ ...LOW, required: true }, ""), "needed");
  assert.equal(pipeline.complaint(LOW, "50"), "");
});

test("steps change places, but not beyond the ends", () => {
  const steps = pipeline.parse("a | b | c");
  assert.equal(pipeline.format(pipeline.moved(steps, 0, 2)), "b | c | a");
  assert.equal(pipeline.moved(steps, 0, -1), steps);
});

test("operators are sorted by group and name", () => {
  const found = pipeline.grouped([{ name: "b", group: "x" }, { name: "c", group: "a" }, { name: "a", group: "x" }]);
  assert.deepEqual(found.map(([group, list]) => [group, list.map((one) => one.name)]), [["a", ["c"]], ["x", ["a", "b"]]]);
});
