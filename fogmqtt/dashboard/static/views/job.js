// One job: its picture while it fills in and afterwards, who did what, what was found, and what can
// be done with it.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { act, getJson, jobUrl } from "../model/api.js";
import * as factsModel from "../model/facts.js";
import { hasEnded } from "../model/fleet.js";
import { bytes, count, date, duration, number, size, sender, undelivered } from "../model/format.js";
import { STATUS_WORDS } from "../model/tiles.js";
import { attempt, fleet, go, link, mayAct, now } from "../state.js";
import { Empty, Heading, html, Icon, Progress, StateBadge, Swatch } from "./html.js";
import { LivePicture } from "./live_picture.js";
import { TimelineTab } from "./timeline.js";
import { Viewer } from "./viewer.js";

const DOWNLOADS = [
  ["result", "image", "Result"],
  ["facts", "facts", "Facts"],
  ["report", "report", "Report"],
  ["trace", "trace", "Trace"],
  ["original", "original", "Original"],
];

export function JobView({ place }) {
  const card = fleet.job(place.job).value;
  const [missing, setMissing] = useState("");
  useEffect(() => {
    // One of the history that the stream of events does not tell of.
    getJson(jobUrl(place.job)).then(
      (one) => fleet.takeJob(one),
      (problem) => setMissing(problem.message),
    );
  }, [place.job]);
  if (!card) {
    return html`<${Heading}>Job ${place.job}<//>
      ${missing ? html`<${Empty} title=${missing}><p><a href=${link("history")}>All jobs</a></p><//>` : html`<p class="quiet">Loading …</p>`}`;
  }
  const isTimeline = place.tab === "timeline";
  return html`
    <div class="job-head">
      <div class="row"><${Heading}>${card.name || card.id}<//><${StateBadge} state=${card.state} /></div>
      <p><code class="wrap">${card.pipeline}</code></p>
      <${Course} card=${card} />
      <${Acts} card=${card} />
      <nav class="tabs" aria-label="Parts of this job">
        <a href=${link("jobs", card.id)} aria-current=${isTimeline ? null : "page"}>Picture</a>
        <a href=${link("jobs", card.id, "timeline")} aria-current=${isTimeline ? "page" : null}>Timeline</a>
      </nav>
    </div>
    ${isTimeline ? html`<${TimelineTab} card=${card} query=${place.query} />` : html`<${Pictures} card=${card} />`}
  `;
}

/** Where the job is, as a sentence and a bar. */
function Course({ card }) {
  const ended = hasEnded(card);
  return html`
    ${!ended && html`<${Progress} card=${card} label="Progress" />`}
    <p class="small">${ended ? endWords(card) : progressWords(card)}</p>
    ${card.error && html`<p class="complaint" role="alert">${card.error}</p>`}
    ${Object.entries(card.undelivered ?? {}).map(([place, what]) => html`<${Undelivered} key=${place} card=${card} place=${place} what=${what} />`)}
    ${card.notices?.map((one) => html`<p key=${one} class="advice"><${Icon} name="advice" />${one}</p>`)}
  `;
}

/** A place that the result did not reach: where to, why, and what can be done. */
function Undelivered({ card, place, what }) {
  const [busy, setBusy] = useState(false);
  const again = async () => {
    setBusy(true);
    await attempt(() => sendAgain(card, place), `The result is sent to ${place} again.`);
    setBusy(false);
  };
  const isGivenUp = what.outlook === "given-up";
  return html`<div class=${`advice ${what.outlook === "again" ? "" : "bad"}`} role="alert">
    <${Icon} name="advice" /><p>${undelivered(place, what)}
    ${isGivenUp && mayAct.value && html` <button disabled=${busy} onClick=${again}><${Icon} name="again" />Send again</button>`}</p>
  </div>`;
}

async function sendAgain(card, place) {
  fleet.takeJob(await act("POST", jobUrl(card.id, `callbacks/${encodeURIComponent(place)}/retry`)));
}

function progressWords(card) {
  if (card.state === "waiting") return `Accepted ${duration(now.value - card.accepted_at)} ago; waits for its turn.`;
  const stage = card.stages > 1 ? `stage ${card.stage} of ${card.stages}` : "";
  const tiles = card.tiles ? `${card.done} of ${count(card.tiles, "tile")} done` : "preparing";
  const left = card.left_s != null ? `about ${duration(card.left_s)} left` : "";
  return [stage, tiles, left, troubles(card)].filter(Boolean).join(" · ");
}

function endWords(card) {
  const took = card.started_at && card.ended_at ? `took ${duration(card.ended_at - card.started_at)}` : "";
  const who = sender(card);
  return [date(card.ended_at ?? card.accepted_at), took, size(card.height, card.width), card.tiles ? count(card.tiles, "tile") : "", troubles(card), who]
    .filter(Boolean)
    .join(" · ");
}

function troubles(card) {
  const parts = [];
  if (card.retries) parts.push(count(card.retries, "retry", "retries"));
  if (card.hedges) parts.push(count(card.hedges, "second copy", "second copies"));
  return parts.join(", ");
}

function Acts({ card }) {
  const files = card.files ?? {};
  const [busy, setBusy] = useState(false);
  const run = async (action, done) => {
    setBusy(true);
    await attempt(action, done);
    setBusy(false);
  };
  return html`<div class="acts">
    ${DOWNLOADS.filter(([file]) => files[file]).map(
      ([file, path, name]) => html`<a key=${file} class=${`button ${file === "result" ? "primary" : ""}`} href=${jobUrl(card.id, path)}
        download=${files[file].name} title=${`${files[file].name}, ${bytes(files[file].bytes)}`}><${Icon} name="download" />${name}</a>`,
    )}
    ${mayAct.value && !hasEnded(card) &&
    html`<button class="danger" disabled=${busy} onClick=${() => run(() => cancel(card), `${card.name || "The job"} was cancelled.`)}><${Icon} name="stop" />Cancel</button>`}
    ${mayAct.value && card.retryable &&
    html`<button class="primary" disabled=${busy} onClick=${() => run(() => retry(card))}><${Icon} name="again" />Try again</button>`}
    ${mayAct.value && files.original &&
    html`<a class="button" href=${link("submit", "", "", { repeat: card.id, pipeline: card.pipeline })}><${Icon} name="again" />Run again …</a>`}
  </div>`;
}

async function cancel(card) {
  fleet.takeJob(await act("DELETE", jobUrl(card.id)));
}

export async function retry(card) {
  const made = await act("POST", jobUrl(card.id, "retry"));
  fleet.takeJob(made);
  go({ view: "jobs", job: made.id });
}

function Pictures({ card }) {
  const [facts, setFacts] = useState(null);
  const [selection, setSelection] = useState({ table: 0, row: null });
  const hasFacts = Boolean(card.files?.facts);
  useEffect(() => {
    if (hasFacts) getJson(jobUrl(card.id, "facts")).then(setFacts, () => setFacts(null));
  }, [card.id, hasFacts]);
  const tables = facts ? factsModel.tables(facts) : [];
  const list = tables[selection.table];
  const isReadable = Boolean(card.width || card.result_width);
  const hasPicture = isReadable && (card.files?.result || card.files?.original);
  return html`<div class="pictures">
    <div>
      ${!hasEnded(card)
        ? html`<${Live} card=${card} />`
        : hasPicture
          ? html`<${Viewer} key=${card.id} card=${card} list=${list} selected=${selection.row} tiles=${fleet.tiles(card.id)} />`
          : html`<${Empty} title="There is no picture of this job."><p>${isReadable ? "Its files are no longer kept." : "Its image could not be read."}</p><//>`}
    </div>
    <aside>
      <${Shares} card=${card} />
      ${facts && html`<${Facts} facts=${facts} tables=${tables} selection=${selection} select=${setSelection} />`}
    </aside>
  </div>`;
}

function Live({ card }) {
  const box = useRef(null);
  const picture = useRef(null);
  const [keep, setKeep] = useState(false);
  const [told, setTold] = useState("");
  const known = card.width && card.height;
  useEffect(() => {
    if (!known) return undefined;
    picture.current = new LivePicture(box.current, fleet, card.id);
    box.current.picture = picture.current;
    return () => picture.current.close();
  }, [card.id, Boolean(known)]);
  useEffect(() => {
    if (!picture.current) return;
    picture.current.keepTints = keep;
    picture.current.redraw();
  }, [keep]);
  if (!known) return html`<${Empty} title="The image is being read."><//>`;
  const tell = (event) => {
    const at = event.currentTarget.getBoundingClientRect();
    setTold(tileWords(card.id, picture.current?.tileAt(event.clientX - at.left, event.clientY - at.top) ?? -1));
  };
  return html`<figure class="viewer">
    <div class="stage live" ref=${box} role="img" style=${{ aspectRatio: `${card.width} / ${card.height}` }}
      aria-label=${`The picture as far as it is done: ${card.done} of ${card.tiles} tiles`}
      onPointerMove=${tell} onPointerLeave=${() => setTold("")}></div>
    <figcaption class="tools">
      <label><input type="checkbox" checked=${keep} onChange=${(event) => setKeep(event.target.checked)} /> Show who did what</label>
      <span class="small quiet right">${told || "Faint: not done. Tinted: at work on a device. Marked corner: given out again."}</span>
    </figcaption>
  </figure>`;
}

function tileWords(job, tile) {
  const map = fleet.tiles(job);
  if (!map || tile < 0) return "";
  const device = map.deviceOf(tile);
  const tries = map.attempt[tile] > 1 ? `, attempt ${map.attempt[tile]}` : "";
  return `Tile ${tile}: ${STATUS_WORDS[map.status[tile]]}${device ? ` at ${device}` : ""}${tries}`;
}

/** How many tiles each device did, with its colour: the legend of the tints. */
function Shares({ card }) {
  const map = fleet.tiles(card.id);
  const live = hasEnded(card) ? new Map() : (map?.shares() ?? new Map());
  const names = [...new Set([...Object.keys(card.devices ?? {}), ...live.keys()])].sort();
  if (!names.length) return null;
  return html`<section aria-labelledby="shares">
    <h2 id="shares">Who does what</h2>
    <table class="plain-table">
      <thead><tr><th scope="col">Device</th><th scope="col" class="num">done</th>${!hasEnded(card) && html`<th scope="col" class="num">at work</th>`}</tr></thead>
      <tbody>${names.map((name) => html`<tr key=${name}>
        <th scope="row"><${Swatch} device=${name} />${name}</th>
        <td class="num">${number(Math.max(card.devices?.[name] ?? 0, live.get(name)?.done ?? 0))}</td>
        ${!hasEnded(card) && html`<td class="num">${live.get(name)?.held ?? 0}</td>`}
      </tr>`)}</tbody>
    </table>
  </section>`;
}

const ROWS = 100;

function Facts({ facts, tables, selection, select }) {
  const counts = factsModel.histogram(facts);
  const figures = factsModel.figures(facts);
  return html`<section aria-labelledby="facts">
    <h2 id="facts">What was found</h2>
    ${figures.length > 0 && html`<dl class="figures">${figures.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}
    ${counts && html`<${Histogram} channels=${counts} />`}
    ${tables.map((table, at) => html`<${FactTable} key=${table.name} table=${table}
      row=${selection.table === at ? selection.row : null} select=${(row) => select({ table: at, row })} />`)}
  </section>`;
}

function FactTable({ table, row, select }) {
  const [most, setMost] = useState(ROWS);
  const canSelect = table.shapes.some(Boolean);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`Table of ${table.name}`}>
    <table class="plain-table facts">
      <caption>${table.name}${canSelect ? ": choose one to see it in the picture" : ""}</caption>
      <thead><tr>${canSelect && html`<th scope="col"><span class="unseen">Show</span></th>`}${table.columns.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody>${table.rows.slice(0, most).map((cells, at) => html`<tr key=${at} class=${at === row ? "selected" : ""}>
        ${canSelect && html`<td><button class="plain-button" aria-pressed=${at === row} aria-label=${`Show ${table.name} ${at + 1} in the picture`}
          onClick=${() => select(at === row ? null : at)}>${at + 1}</button></td>`}
        ${cells.map((text, column) => html`<td key=${column}>${text}</td>`)}</tr>`)}</tbody>
    </table>
    ${table.rows.length > most && html`<button onClick=${() => setMost(most * 4)}>Show more of ${number(table.rows.length)}</button>`}
  </div>`;
}

function Histogram({ channels }) {
  const most = Math.max(1, ...channels.flat());
  const colours = channels.length === 1 ? ["currentColor"] : ["#3b82f6", "#22c55e", "#ef4444", "currentColor"];
  const bins = channels[0].length;
  const line = (counts) => counts.map((one, at) => `${at},${(100 - (one / most) * 98).toFixed(1)}`).join(" ");
  return html`<svg class="histogram" viewBox=${`0 0 ${Math.max(1, bins - 1)} 100`} preserveAspectRatio="none" role="img"
    aria-label=${`Histogram of ${count(channels.length, "channel")}, ${bins} bins`}>
    ${channels.map((counts, at) => html`<polyline key=${at} points=${line(counts)} stroke=${colours[at]} />`)}
  </svg>`;
}
