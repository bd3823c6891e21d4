import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, count, duration, number, pixelRate, sender, size, undelivered } from "../../fogmqtt/dashboard/static/model/format.js";

test("a duration has the unit that people would say", () => {
  const shown = [0, 0.0003, 0.0123, 0.85, 4.2, 9.96, 59, 60, 200, 3599, 7500, 86400 * 3].map(duration);
  assert.deepEqual(shown, ["0 s", "0.3 ms", "12 ms", "850 ms", "4.2 s", "10 s", "59 s", "1 min", "3 min 20 s", "59 min 59 s", "2 h 5 min", "3 days"]);
});

test("a duration that is not known shows nothing", () => {
  assert.equal(duration(Infinity), "");
  assert.equal(duration(NaN), "");
});

test("what was long ago is a date, and the future is now", () => {
  assert.deepEqual([105, 99, 90, -100].map((then) => ago(then, 100)), ["now", "now", "10 s ago", "3 min ago"]);
  assert.match(ago(0, 1e9), /1970/);
});

test("numbers keep three digits, and whole ones beyond", () => {
  assert.deepEqual([0.12345, 12.345, 999.7, 1234.5, 1.2e7, -1234].map(number), ["0.123", "12.3", "1,000", "1,235", "12,000,000", "-1,234"]);
});

test("one thing is no things", () => {
  assert.deepEqual([count(1, "tile"), count(0, "tile"), count(2, "retry", "retries")], ["1 tile", "0 tiles", "2 retries"]);
});

test("sizes of files and images are read at a glance", () => {
  assert.deepEqual([bytes(640), bytes(12_500), bytes(3.4e6)], ["640 B", "12.5 kB", "3.4 MB"]);
  assert.equal(size(3000, 4000), "4000 × 3000 (12 MP)");
  assert.equal(size(0, 0), "");
  assert.equal(pixelRate(8_120_000), "8.12 MP/s");
});

test("a result that is on its way or lost says where to, why, and what comes of it", () => {
  const server = "https://shop.example:8443";
  assert.equal(
    undelivered("shop", { reason: "given up after 3 tries: it answered 500;", outlook: "given-up", server }),
    `The result did not reach shop (${server}): given up after 3 tries: it answered 500. Mend the receiver, then have it sent again.`,
  );
  assert.match(undelivered("shop", { reason: "no answer", outlook: "again", server: "" }), /^The result has not reached shop: no answer\. It is tried again/);
  assert.match(undelivered("latest=a", { reason: "no broker", outlook: "lost" }), /It is not tried again\.$/);
});

test("a job says in words where it came from", () => {
  assert.equal(sender({ source: "page", who: "this machine" }), "from the page, by this machine");
  assert.equal(sender({ source: "inbox", who: "" }), "from the inbox");
  assert.equal(sender({ source: "", who: "" }), "");
});
