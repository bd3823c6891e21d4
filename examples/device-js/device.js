#!/usr/bin/env node
// A fogmqtt device, written from docs/protocol.md alone. It runs one tile after the other.

import { randomBytes } from "node:crypto";
import { hostname, loadavg } from "node:os";
import { parseArgs } from "node:util";

import mqtt from "mqtt";

import { checkTileDigest, decode, encode, resultDigest } from "./messages.js";
import { DTYPES, OPERATORS, run } from "./operators.js";

const CHECK_IN_S = 5;
const MOST_QUEUED = 16;
/** From this meeting with the same agent on, the boot ids decide which of the two exits. */
const BOOT_DECIDES_AT = 4;

const { values: options } = parseArgs({
  options: {
    id: { type: "string" },
    broker: { type: "string", default: "mqtt://127.0.0.1:1883" },
    prefix: { type: "string", default: "fog/v1" },
    qos: { type: "string", default: "1" },
    protocol: { type: "string", default: "5" },
    username: { type: "string" },
  },
});
if (!/^[a-z0-9][a-z0-9_-]{0,31}$/.test(options.id ?? "")) {
  console.error("usage: device.js --id NAME [--broker URL] (a-z 0-9 _ -; password: FOG_PASSWORD)");
  process.exit(2);
}

const qos = Number(options.qos);
const boot = randomBytes(8).toString("hex");
const topicOf = (leaf) => `${options.prefix}/devices/${options.id}/${leaf}`;
const [STATUS, INFO, TILES, CONTROL] = ["status", "info", "tiles", "control"].map(topicOf);
const retained = { qos: 1, retain: true };

/** Tiles that wait: { message, json }. */
const queue = [];
let sequence = 0;
let tilesDone = 0;
let isWorking = false;
let isDraining = false;
/** Whether our info came back once: infos of others that come later are newer than our start. */
let ownInfoCame = false;
/** How often we met another agent with our id, by its boot. */
const meetings = new Map();

const client = mqtt.connect(options.broker, {
  clientId: `${options.prefix.replaceAll(/[^A-Za-z0-9]/g, "-")}-device-${options.id}`,
  protocolVersion: options.protocol === "5" ? 5 : 4,
  clean: true,
  resubscribe: false,
  username: options.username,
  password: process.env.FOG_PASSWORD,
  will: { topic: STATUS, payload: "offline", ...retained },
});

client.on("connect", async () => {
  await client.subscribeAsync([TILES, CONTROL, INFO], { qos });
  checkIn();
  client.publish(STATUS, "online", retained);
  console.error(`${options.id} is online at ${options.broker}`);
});
client.on("error", (problem) => console.error(`${options.broker}: ${problem.message}`));
client.on("message", (topic, payload, packet) => {
  try {
    if (topic === INFO) infoCame(payload);
    else if (packet.retain) throw new Error("a retained message is refused");
    else if (topic === TILES) tileCame(decode(payload));
    else controlCame(decode(payload).message);
  } catch (problem) {
    console.error(`${topic}: ${problem.message}`);
  }
});
setInterval(checkIn, CHECK_IN_S * 1000);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, drain);

// Presence.

function checkIn() {
  if (!client.connected) return;
  const info = {
    type: "device",
    boot,
    sequence: ++sequence,
    uptime_s: process.uptime(),
    workers: 1,
    operators: Object.keys(OPERATORS),
    codecs: ["raw"],
    dtypes: DTYPES,
    host: hostname(),
    versions: { node: process.versions.node },
    draining: isDraining,
    tiles_held: queue.length + (isWorking ? 1 : 0),
    tiles_done: tilesDone,
    load: loadavg()[0],
  };
  client.publish(INFO, JSON.stringify(info), retained);
}

function infoCame(payload) {
  if (payload.length === 0) return; // somebody cleared the topic
  const { message: info } = decode(payload);
  if (info.boot === boot) ownInfoCame = true;
  if (info.boot === boot || !ownInfoCame) return;
  if (mustExit(info)) {
    console.error(`another agent runs under the id ${options.id}; give this one another --id`);
    process.exit(1);
  }
  checkIn(); // the other one sees that we stay, and exits
}

/** The uptime in a retained info is as old as the info, so it may not decide: then the boots do. */
function mustExit(info) {
  const meeting = (meetings.get(info.boot) ?? 0) + 1;
  meetings.set(info.boot, meeting);
  if (meeting >= BOOT_DECIDES_AT) return boot > info.boot;
  return meeting === 1 && info.uptime_s > process.uptime();
}

// Tiles.

function tileCame({ message: tile, json }) {
  if (isDraining || queue.length >= MOST_QUEUED) {
    reply(tile, json, { type: "rejected", reason: isDraining ? "draining" : "full" });
  } else {
    reply(tile, json, { type: "accepted" }, 0);
    queue.push({ tile, json, cameAt: performance.now() });
    work();
  }
}

/** Does the next tile, and lets messages come in before the one after it. */
function work() {
  if (isWorking || queue.length === 0) return;
  isWorking = true;
  setImmediate(() => {
    const next = queue.shift(); // a cancel may have taken it
    if (next) finish(next);
    isWorking = false;
    if (isDraining && queue.length === 0) leave();
    else work();
  });
}

function finish({ tile, json, cameAt }) {
  const beganAt = performance.now();
  let message;
  try {
    checkTileDigest(tile);
    message = { type: "result", ...idsOf(tile), ...run(tile) };
    message.digest = resultDigest(message);
    message.queue_s = (beganAt - cameAt) / 1000;
    message.compute_s = (performance.now() - beganAt) / 1000;
  } catch (problem) {
    message = { type: "failure", reason: problem.message, traceback: problem.stack };
  }
  tilesDone++;
  reply(tile, json, message);
}

function idsOf({ job, tile, attempt }) {
  return { job, tile, attempt };
}

function reply(tile, json, message, replyQos = qos) {
  const topic = `${options.prefix}/gateways/${tile.gateway}/results/${options.id}`;
  client.publish(topic, encode({ ...message, ...idsOf(tile) }, json), { qos: replyQos });
}

// Control messages.

function controlCame(message) {
  if (message.type === "drain") drain();
  if (message.type !== "cancel") return;
  const isCancelled = ({ tile }) =>
    ["gateway", "job", "tile", "attempt"].every((name) => tile[name] === message[name]);
  const at = queue.findIndex(isCancelled);
  if (at >= 0) queue.splice(at, 1);
}

function drain() {
  if (isDraining) return;
  isDraining = true;
  for (const { tile, json } of queue.splice(0)) {
    reply(tile, json, { type: "rejected", reason: "draining" });
  }
  if (!isWorking) leave();
}

async function leave() {
  if (client.connected) await client.publishAsync(STATUS, "offline", retained);
  await client.endAsync();
  process.exit(0);
}
