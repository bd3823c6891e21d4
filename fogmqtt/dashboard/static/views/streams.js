// A wall of live streams, and one of them large: what it shows, how old it is, and what was dropped.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { AGES, drops, Live, pictureWidth, word } from "../model/live.js";
import { duration, number, size } from "../model/format.js";
import { link } from "../state.js";
import { Empty, Heading, html } from "./html.js";

/** Seconds without a frame after which a picture is called old. */
const OLD_S = 3;
/** Above this, a chart ends: an age of more is bad anyway. */
const LEAST_TOP_S = 0.1;

export const live = new Live(() => new WebSocket(new URL("api/live", document.baseURI.replace(/^http/, "ws"))));

export function StreamsView({ place }) {
  useEffect(() => {
    live.start();
    return () => live.stop();
  }, []);
  const cards = live.cards.value;
  const chosen = place.job;
  return html`
    <${Heading}>${chosen ? `Stream ${chosen}` : "Streams"}<//>
    <p class="lead">${summary(cards, chosen)}</p>
    ${cards && (chosen ? html`<${One} cards=${cards} name=${chosen} />` : html`<${Wall} cards=${cards} />`)}
  `;
}

function summary(cards, chosen) {
  if (live.isAway.value) return "The dashboard does not answer. The page connects again by itself.";
  if (!cards) return "Waiting for the gateway.";
  if (chosen) return html`<a href=${link("streams")}>All streams</a>`;
  const running = cards.filter((card) => card.status === "online").length;
  const bad = cards.filter((card) => card.tone === "bad").length;
  return cards.length ? `${running} of ${cards.length} run${bad ? `, ${bad} in trouble` : ""}.` : "";
}

function One({ cards, name }) {
  const card = cards.find((one) => one.name === name);
  if (!card) return html`<${Empty} title=${`There is no stream ${name}.`}><p><a href=${link("streams")}>All streams</a></p><//>`;
  return html`<${StreamCard} card=${card} large=${true} />`;
}

function Wall({ cards }) {
  if (!cards.length) {
    return html`<${Empty} title="No stream is configured.">
      <p>Add one to the gateway's configuration: <code>streams: {yard: {source: "rtsp://camera.local/h264", pipeline: edges}}</code></p>
    <//>`;
  }
  return html`<ul class="wall">${cards.map((card) => html`<li key=${card.name}><${StreamCard} card=${card} /></li>`)}</ul>`;
}

function StreamCard({ card, large = false }) {
  const { name, state } = card;
  return html`<article class=${`card stream ${large ? "large" : ""}`} aria-labelledby=${`stream-${name}`}>
    ${card.status === "online" && html`<${Picture} name=${name} fps=${state.fps_out} />`}
    <header class="row">
      <h2 id=${`stream-${name}`}>${large ? name : html`<a href=${link("streams", name)}>${name}</a>`}</h2>
      ${card.motion && html`<span class="badge warn">Something is there</span>`}
      <span class=${`badge right ${card.tone}`}>${word(card)}</span>
    </header>
    <p>${card.sentence}</p>
    ${state && html`<${Figures} state=${state} /><${AgeChart} name=${name} /><${RateChart} name=${name} /><${Frames} state=${state} />`}
  </article>`;
}

/** The frames of a stream, as fast as this page can draw them. */
function Picture({ name, fps }) {
  const place = useRef(null);
  const [old, setOld] = useState(0);
  useEffect(() => {
    const canvas = place.current;
    let drawnAt = performance.now();
    let isSeen = true;
    const draw = async (jpeg) => {
      const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
        [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      }
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      bitmap.close();
      drawnAt = performance.now();
      canvas.frames = (canvas.frames ?? 0) + 1;
      await new Promise(requestAnimationFrame);
    };
    const look = () => {
      if (!isSeen || document.hidden) live.hide(name);
      else live.show(name, pictureWidth(canvas.clientWidth, devicePixelRatio), draw);
    };
    const seen = new IntersectionObserver((entries) => {
      isSeen = entries.at(-1).isIntersecting;
      look();
    });
    const sized = new ResizeObserver(look);
    seen.observe(canvas);
    sized.observe(canvas);
    document.addEventListener("visibilitychange", look);
    const timer = setInterval(() => setOld((performance.now() - drawnAt) / 1000), 1000);
    return () => {
      live.hide(name);
      seen.disconnect();
      sized.disconnect();
      document.removeEventListener("visibilitychange", look);
      clearInterval(timer);
    };
  }, [name]);
  const isOld = old > Math.max(OLD_S, fps > 0 ? 3 / fps : 0);
  return html`<div class=${`picture ${isOld ? "frozen" : ""}`}>
    <canvas ref=${place} width="16" height="9" role="img" aria-label=${`Live picture of ${name}`}></canvas>
    ${isOld && html`<p class="tag left">No new frame for ${old < 60 ? `${Math.floor(old)} s` : duration(old)}</p>`}
  </div>`;
}

function Figures({ state }) {
  const rows = [
    ["fps in", number(state.fps_in)],
    ["fps out", number(state.fps_out)],
    ["age p99", state.published ? duration(state.age_s.p99) : "–"],
    ["came out", number(state.published)],
  ];
  return html`<dl class="figures">
    ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** The age of what came out over the last minute: flat is good. */
function AgeChart({ name }) {
  const ages = live.ages.get(name) ?? [];
  const top = Math.max(LEAST_TOP_S, ...ages);
  const said = ages.length ? `Age of results, last minute: ${duration(Math.min(...ages))} to ${duration(Math.max(...ages))}` : "No result yet";
  return html`<svg class="spark age" viewBox=${`0 0 ${AGES - 1} 20`} preserveAspectRatio="none" role="img" aria-label=${said}>
    <polyline points=${points(ages, top)} /></svg>`;
}

/** Frames a second over the last minute: those that came, and those that came out. */
function RateChart({ name }) {
  const rates = live.rates.get(name) ?? [];
  const [came, out] = [rates.map((one) => one[0]), rates.map((one) => one[1])];
  const top = Math.max(1, ...came, ...out);
  const said = rates.length ? `Frames a second now: ${number(came.at(-1))} in, ${number(out.at(-1))} out` : "No frame yet";
  return html`<svg class="spark rate" viewBox=${`0 0 ${AGES - 1} 20`} preserveAspectRatio="none" role="img" aria-label=${said}>
    <title>${said}</title>
    <polyline class="in" points=${points(came, top)} /><polyline points=${points(out, top)} /></svg>`;
}

/** The corners of a line through the newest values, which end at the right. */
function points(values, top) {
  return values.map((value, at) => `${at + AGES - values.length},${(19 - (value / top) * 18).toFixed(1)}`).join(" ");
}

function Frames({ state }) {
  const rows = drops(state);
  const what = [size(state.height, state.width), state.codec, state.clock && `clock: ${state.clock}`, state.gateway];
  return html`<details>
    <summary>Frames${rows.length ? "" : ": none was dropped"}</summary>
    <p class="small quiet">${what.filter(Boolean).join(" · ")} · <code>${state.pipeline}</code></p>
    ${rows.length > 0 &&
    html`<table class="plain-table"><caption>Why frames did not come out, of ${number(state.received)}</caption><tbody>
      ${rows.map(([why, count]) => html`<tr key=${why}><th scope="row">${why}</th><td class="num">${number(count)}</td></tr>`)}
    </tbody></table>`}
  </details>`;
}
