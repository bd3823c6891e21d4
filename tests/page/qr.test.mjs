// A QR code as a path: one rectangle for each run of dark squares.

import assert from "node:assert/strict";
import { test } from "node:test";
import { qrPath } from "../../fogmqtt/dashboard/static/model/qr.js";

test("each run of dark squares is one rectangle", () => {
  assert.equal(qrPath(["0110", "1001"]), "M1 0h2v1h-2zM0 1h1v1h-1zM3 1h1v1h-1z");
});

test("an empty code draws nothing", () => {
  assert.equal(qrPath(["000", "000"]), "");
});
