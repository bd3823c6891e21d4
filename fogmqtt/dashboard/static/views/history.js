// All jobs, the newest first: those that the stream of events tells of, and older ones by pages.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { getJson, jobUrl, withQuery } from "../model/api.js";
import { hasEnded } from "../model/fleet.js";
import { ago, count, duration, sender } from "../model/format.js";
import { attempt, fleet, link, mayAct, now, setQuery } from "../state.js";
import { Empty, Heading, html, Icon, Progress, StateBadge } from "./html.js";
import { retry } from "./job.js";

const PAGE = 40;
const STATES = ["", "running", "waiting", "done", "failed", "cancelled"];
const TYPING_MS = 250;

export function HistoryView({ place }) {
  const { text = "", state = "" } = place.query;
  const [older, setOlder] = useState({ ids: [], next: "", loading: true, problem: "" });
  const asked = useRef(0);

  const load = async (after) => {
    const number = ++asked.current;
    setOlder((old) => ({ ...old, ids: after ? old.ids : [], loading: true, problem: "" }));
    try {
      const page = await getJson(withQuery("api/jobs", { limit: PAGE, after, state, text }));
      if (number !== asked.current) return;
      page.jobs.forEach((card) => fleet.takeJob(card));
      const ids = page.jobs.map((card) => card.id);
      setOlder((old) => ({ ids: [...old.ids, ...ids], next: page.next ?? "", loading: false, problem: "" }));
    } catch (problem) {
      if (number === asked.current) setOlder((old) => ({ ...old, loading: false, problem: problem.message }));
    }
  };

  useEffect(() => {
    const timer = setTimeout(() => load(""), text ? TYPING_MS : 0);
    return () => clearTimeout(timer);
  }, [text, state]);

  const cards = shown(fleet.jobIds.value, older.ids, { text, state });
  return html`
    <${Heading}>Jobs<//>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label for="text" class="unseen">Name or pipeline contains</label>
      <input id="text" type="search" placeholder="Name or pipeline" value=${text}
        onInput=${(event) => setQuery({ text: event.target.value })} />
      <label for="state" class="unseen">State</label>
      <select id="state" value=${state} onChange=${(event) => setQuery({ state: event.target.value })}>
        ${STATES.map((one) => html`<option key=${one} value=${one} selected=${one === state}>${one || "all states"}</option>`)}
      </select>
    </form>
    ${older.problem && html`<p class="complaint" role="alert">${older.problem}</p>`}
    ${cards.length
      ? html`<ul class="history">${cards.map((card) => html`<li key=${card.id}><${Row} id=${card.id} /></li>`)}</ul>`
      : !older.loading && html`<${Nothing} filtered=${Boolean(text || state)} />`}
    ${older.loading && html`<p class="quiet" role="status">Loading …</p>`}
    ${older.next && !older.loading && html`<button onClick=${() => load(older.next)}>Show older jobs</button>`}
  `;
}

/** Jobs of the pages and new ones of the stream, which match the filters. */
function shown(live, ids, { text, state }) {
  const known = [...new Set([...ids, ...live])].map((id) => fleet.job(id).value).filter(Boolean);
  const words = text.toLowerCase();
  const oldest = ids.length ? Math.min(...ids.map((id) => fleet.job(id).peek()?.accepted_at ?? Infinity)) : -Infinity;
  const onPages = new Set(ids);
  return known
    .filter((card) => onPages.has(card.id) || card.accepted_at >= oldest)
    .filter((card) => !state || card.state === state)
    .filter((card) => !words || `${card.name} ${card.pipeline} ${card.pipeline_name}`.toLowerCase().includes(words))
    .sort((a, b) => b.accepted_at - a.accepted_at || (a.id < b.id ? 1 : -1));
}

function Nothing({ filtered }) {
  if (filtered) return html`<${Empty} title="No job matches."><button onClick=${() => setQuery({ text: "", state: "" })}>Show all jobs</button><//>`;
  return html`<${Empty} title="There was no job yet.">
    ${mayAct.value && html`<p><a href=${link("submit")}>Submit an image</a>, or drop one anywhere on this page.</p>`}
  <//>`;
}

function Row({ id }) {
  const card = fleet.job(id).value;
  if (!card) return null;
  return html`<article class="card job" aria-label=${card.name || id}>
    <a class="thumb" href=${link("jobs", id)} tabindex="-1" aria-hidden="true"><${Thumbnail} card=${card} /></a>
    <div class="grow">
      <p class="row"><a href=${link("jobs", id)}><strong>${card.name || id}</strong></a><${StateBadge} state=${card.state} /></p>
      <p><code class="line">${card.pipeline}</code></p>
      ${!hasEnded(card) && html`<${Progress} card=${card} label=${`Progress of ${card.name || id}`} />`}
      ${card.error && html`<p class="complaint small">${card.error}</p>`}
      ${places(card) && html`<p class="complaint small">Not delivered: ${places(card)}</p>`}
      <p class="small quiet">${words(card)}</p>
    </div>
    <div class="acts">
      ${mayAct.value && card.retryable && html`<button onClick=${() => attempt(() => retry(card))}><${Icon} name="again" />Try again</button>`}
      ${mayAct.value && card.files?.original &&
      html`<a class="button" href=${link("submit", "", "", { repeat: id, pipeline: card.pipeline })} aria-label=${`Run ${card.name || id} again`}><${Icon} name="again" />Run again …</a>`}
    </div>
  </article>`;
}

function Thumbnail({ card }) {
  if (!card.files?.thumbnail) return html`<${Icon} name="image" />`;
  return html`<img src=${jobUrl(card.id, "thumbnail")} alt="" loading="lazy" decoding="async" />`;
}

/** The places that a result did not reach, if somebody should look at it. */
function places(card) {
  const all = Object.entries(card.undelivered ?? {});
  return all.filter(([, what]) => what.outlook !== "again").map(([place]) => place).join(", ");
}

function words(card) {
  const took = card.started_at && card.ended_at ? `took ${duration(card.ended_at - card.started_at)}` : "";
  const who = sender(card);
  const devices = Object.keys(card.devices ?? {}).length;
  return [ago(card.accepted_at, now.value), took, card.tiles ? `${count(card.tiles, "tile")} on ${count(devices, "device")}` : "", who]
    .filter(Boolean)
    .join(" · ");
}
