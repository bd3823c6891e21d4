// The timeline of a job: a row for each worker, a bar for each attempt of a tile with its phases.

import { useEffect, useMemo, useState } from "../vendor/hooks.js";
import { getJson, jobUrl } from "../model/api.js";
import { hasEnded } from "../model/fleet.js";
import { duration } from "../model/format.js";
import { attemptsOf, filtered, parseTrace } from "../model/trace.js";
import { setQuery } from "../state.js";
import { Gantt } from "./gantt.js";
import { Empty, html, Swatch } from "./html.js";

export function TimelineTab({ card, query }) {
  const { trace, problem } = useTrace(card);
  const { device = "", show = "", tile = "" } = query;
  const rows = useMemo(() => (trace ? filtered(trace.rows, { device, show }) : []), [trace, device, show]);
  const selected = rows.flatMap((row) => row.bars).find((bar) => tile && bar.key === tile) ?? null;

  if (!hasEnded(card)) return html`<${Empty} title="The timeline comes when the job has ended."><//>`;
  if (problem) return html`<${Empty} title=${problem}><//>`;
  if (!trace) return html`<p class="quiet" role="status">Loading …</p>`;
  const devices = [...new Set(trace.rows.map((row) => row.device).filter(Boolean))];
  return html`
    <div class="filters">
      <label for="t-device" class="unseen">Device</label>
      <select id="t-device" onChange=${(event) => setQuery({ device: event.target.value })}>
        <option value="">all devices</option>
        ${devices.map((name) => html`<option key=${name} value=${name} selected=${name === device}>${name}</option>`)}
      </select>
      <label for="t-show" class="unseen">Attempts</label>
      <select id="t-show" onChange=${(event) => setQuery({ show: event.target.value })}>
        <option value="">workers and steps</option>
        <option value="troubled" selected=${show === "troubled"}>only tiles with trouble</option>
        <option value="all" selected=${show === "all"}>all tracks, with cutting, travel and pasting</option>
      </select>
    </div>
    ${rows.length
      ? html`<${Gantt} rows=${rows} end=${trace.seconds} selected=${selected}
          label=${`Timeline of ${card.name || card.id}: ${rows.length} rows, ${duration(trace.seconds)}`}
          select=${(bar) => setQuery({ tile: bar?.key ?? "" })} />`
      : html`<${Empty} title="Nothing matches these filters."><button onClick=${() => setQuery({ device: "", show: "", tile: "" })}>Show all</button><//>`}
    ${selected && html`<${Story} bar=${selected} rows=${trace.rows} />`}
    ${trace.leftOut > 0 && html`<p class="small quiet">${trace.leftOut} attempts are not in the trace.</p>`}
  `;
}

function useTrace(card) {
  const [state, setState] = useState({});
  const isThere = Boolean(card.files?.trace);
  useEffect(() => {
    if (!hasEnded(card)) return;
    if (!isThere) return void setState({ problem: "No trace of this job is kept." });
    getJson(jobUrl(card.id, "trace")).then(parseTrace).then(
      (trace) => setState({ trace }),
      (problem) => setState({ problem: problem.message }),
    );
  }, [card.id, isThere, card.state]);
  return state;
}

/** What happened to a tile: the attempt that was chosen with its phases, and the other attempts. */
function Story({ bar, rows }) {
  const attempts = attemptsOf(rows, bar.tile);
  const total = spanOf(bar) || 1;
  return html`<section class="story card" aria-labelledby="story">
    <h2 id="story">${bar.label}</h2>
    <p class="small quiet">${bar.story}</p>
    ${bar.parts?.length > 0 &&
    html`<table class="plain-table"><thead><tr><th scope="col">Phase</th><th scope="col" class="num">from</th><th scope="col" class="num">took</th><th scope="col" class="num">share</th></tr></thead>
      <tbody>${bar.parts.map((part, at) => html`<tr key=${at}><th scope="row">${part.name}</th><td class="num">${duration(part.begin)}</td>
        <td class="num">${duration(part.end - part.begin)}</td><td class="num">${Math.round(((part.end - part.begin) / total) * 100)} %</td></tr>`)}</tbody></table>`}
    ${attempts.length > 1 &&
    html`<h3>All attempts of tile ${bar.tile}</h3>
      <ul>${attempts.map((one) => html`<li key=${one.key}><${Swatch} device=${one.device} /> ${one.label} at ${one.device}: ${one.ending}, after ${duration(spanOf(one))}</li>`)}</ul>`}
  </section>`;
}

/** Seconds from the first phase of an attempt to the end of its last one. */
function spanOf(bar) {
  const { parts } = bar;
  return parts?.length ? parts[parts.length - 1].end - parts[0].begin : bar.end - bar.begin;
}
