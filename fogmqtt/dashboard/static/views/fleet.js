// The fleet at a glance: what runs, and a card for each device.

import { useEffect, useState } from "../vendor/hooks.js";
import { colour } from "../model/colours.js";
import { count, duration, number, pixelRate, size } from "../model/format.js";
import { fleet, link, mayAct, now } from "../state.js";
import { NewBoards } from "./boards.js";
import { Empty, Heading, html, Icon, Progress, StateBadge, Swatch } from "./html.js";

const ACTIVITIES = {
  working: ["Working", "busy"],
  idle: ["Idle", "good"],
  starting: ["Starting", "quiet"],
  quarantined: ["In quarantine", "bad"],
  draining: ["Draining", "warn"],
  silent: ["Silent", "warn"],
  offline: ["Offline", "quiet"],
  incompatible: ["Incompatible", "bad"],
};

export function FleetView() {
  return html`
    <${Heading}>Fleet<//>
    <p class="lead"><${Summary} /></p>
    <${Running} />
    <${Devices} />
    ${mayAct.value && html`<${NewBoards} />`}
  `;
}

function Summary() {
  const cards = fleet.deviceIds.value.map((id) => fleet.device(id).value).filter(Boolean);
  const working = cards.filter((card) => card.activity === "working").length;
  const jobs = fleet.running.value.length;
  const rate = cards.reduce((sum, card) => sum + card.tiles_per_s, 0);
  const pixels = cards.reduce((sum, card) => sum + card.pixels_per_s, 0);
  if (!fleet.gateway.value) return "Waiting for the gateway.";
  const away = cards.filter((card) => card.activity === "offline").length;
  const online = `${count(cards.length - away, "device")} online${away ? `, ${away} offline` : ""}`;
  if (!jobs) return `${online}. Nothing to do.`;
  return `${working} of ${count(cards.length, "device")} at work on ${count(jobs, "job")}: ${number(rate)} tiles/s, ${pixelRate(pixels)}.`;
}

function Running() {
  const ids = fleet.running.value;
  if (!ids.length) return null;
  return html`<section aria-labelledby="running">
    <h2 id="running">Jobs now</h2>
    <ul class="running">${ids.map((id) => html`<li key=${id}><${RunningJob} id=${id} /></li>`)}</ul>
  </section>`;
}

function RunningJob({ id }) {
  const card = fleet.job(id).value;
  if (!card) return null;
  const left = card.left_s != null && card.state === "running" ? `${duration(card.left_s)} left` : "";
  return html`<a class="card run" href=${link("jobs", id)}>
    <span class="row"><strong>${card.name || id}</strong><${StateBadge} state=${card.state} />
      <span class="right quiet">${left}</span></span>
    <code>${card.pipeline_name || card.pipeline}</code>
    <${Progress} card=${card} label=${`Progress of ${card.name || id}`} />
    <span class="quiet small">${jobWords(card)}</span>
  </a>`;
}

function jobWords(card) {
  if (card.notices?.length) return card.notices[card.notices.length - 1];
  const stage = card.stages > 1 ? `stage ${card.stage} of ${card.stages}, ` : "";
  const tiles = card.tiles ? `${card.done} of ${count(card.tiles, "tile")}` : "preparing";
  return [stage + tiles, size(card.height, card.width)].filter(Boolean).join(" · ");
}

function Devices() {
  const ids = fleet.deviceIds.value;
  if (!fleet.gateway.value) return null;
  return html`<section aria-labelledby="devices">
    <h2 id="devices">Devices</h2>
    ${ids.length
      ? html`<ul class="devices">${ids.map((id) => html`<li key=${id}><${DeviceCard} id=${id} /></li>`)}</ul>`
      : html`<${Empty} title="No device is online.">
          <p>Start one on a board: <code>fog-device --broker ${fleet.gateway.value.broker || "mqtt://…"}</code></p>
          <p>Images that you ${mayAct.value ? html`<a href=${link("submit")}>submit</a>` : "submit"} wait until one comes, or this machine does them.</p>
        <//>`}
  </section>`;
}

function DeviceCard({ id }) {
  const card = fleet.device(id).value;
  if (!card) return null;
  const [word, tone] = ACTIVITIES[card.activity] ?? [card.activity, "quiet"];
  const isGone = card.activity === "offline" || card.activity === "incompatible";
  return html`<article class=${`card device ${isGone ? "gone" : ""}`} aria-labelledby=${`device-${id}`}>
    <header class="row">
      <${Swatch} device=${id} /><h3 id=${`device-${id}`}>${id}</h3>
      <span class=${`badge ${tone} right`}>${word}</span>
    </header>
    <p>${card.sentence} ${card.quarantined_until ? html`<${Countdown} until=${card.quarantined_until} />` : ""}</p>
    ${card.advice && html`<p class="advice"><${Icon} name="advice" />${card.advice}</p>`}
    ${card.jobs?.length > 0 &&
    html`<p class="small">Works on ${card.jobs.slice(0, 3).map((job, at) => html`${at ? ", " : ""}<${JobLink} id=${job} />`)}${card.jobs.length > 3 ? ` and ${card.jobs.length - 3} more` : ""}</p>`}
    ${!isGone && html`<${Figures} card=${card} /><${Sparkline} id=${id} />`}
    <${More} card=${card} />
  </article>`;
}

function Countdown({ until }) {
  const left = until - now.value;
  return left > 0 ? html`<span class="nowrap">${duration(Math.ceil(left))} left.</span>` : null;
}

function JobLink({ id }) {
  return html`<a href=${link("jobs", id)}>${fleet.job(id).value?.name || id}</a>`;
}

function Figures({ card }) {
  const rows = [
    ["tiles/s", number(card.tiles_per_s)],
    ["MP/s", number(Math.round(card.pixels_per_s / 1e4) / 100)],
    ["latency", card.latency_s == null ? "–" : duration(card.latency_s)],
    ["done", number(card.tiles_done)],
    ["held", number(card.tiles_held)],
    ["workers", number(card.workers)],
  ];
  if (card.load != null) rows.push(["load", number(Math.round(card.load * 100) / 100)]);
  if (card.temperature_c != null) rows.push(["°C", html`<span class=${card.temperature_c >= 75 ? "hot" : ""}>${Math.round(card.temperature_c)}</span>`]);
  return html`<dl class="figures">
    ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

const SECONDS = 60;

/** Tiles a second over the last minute. */
function Sparkline({ id }) {
  const [rates, setRates] = useState([]);
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.hidden) return;
      const rate = fleet.device(id).peek()?.tiles_per_s ?? 0;
      setRates((old) => (rate || old.some(Boolean) ? [...old, rate].slice(-SECONDS) : old));
    }, 1000);
    return () => clearInterval(timer);
  }, [id]);
  const most = Math.max(...rates, 0.001);
  const points = rates.map((rate, at) => `${at + SECONDS - rates.length},${(19 - (rate / most) * 17).toFixed(1)}`);
  if (points.length < 2 || most <= 0.001) return html`<div class="spark"></div>`;
  return html`<svg class="spark" viewBox=${`0 0 ${SECONDS - 1} 20`} preserveAspectRatio="none" aria-hidden="true">
    <polyline points=${points.join(" ")} stroke=${colour(id)} /></svg>`;
}

function More({ card }) {
  const lacks = Object.entries(card.lacks ?? {});
  const versions = Object.entries(card.versions ?? {}).map(([name, one]) => `${name} ${one}`);
  const problems = card.problems ?? [];
  if (!lacks.length && !versions.length && !problems.length && !card.host) return null;
  return html`<details>
    <summary>Details${lacks.length + problems.length ? ` (${count(lacks.length + problems.length, "remark")})` : ""}</summary>
    ${card.host && html`<p class="small">${card.host}</p>`}
    ${versions.length > 0 && html`<p class="small quiet">${versions.join(" · ")}</p>`}
    ${problems.map((one) => html`<p key=${one} class="small">${one}</p>`)}
    ${lacks.length > 0 &&
    html`<p class="small">Cannot do:</p><ul class="small">${lacks.slice(0, 20).map(([name, why]) => html`<li key=${name}><code>${name}</code> ${why}</li>`)}</ul>`}
  </details>`;
}
