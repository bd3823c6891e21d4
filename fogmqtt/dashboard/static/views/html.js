// Templates as tagged texts, and the small parts that all views use.

import { h } from "../vendor/preact.js";
import htm from "../vendor/htm.js";
import { colour } from "../model/colours.js";

export const html = htm.bind(h);

/** Lines of 24 × 24 icons. */
const ICONS = {
  fleet: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  streams: "M3 7h12v10H3zM15 11l6-3v8l-6-3",
  history: "M4 12a8 8 0 1 0 2.6-5.9M4 4v4h4M12 8v4l3 2",
  submit: "M12 16V5m0 0L7.5 9.5M12 5l4.5 4.5M5 15v4h14v-4",
  simulate: "M4 19V5m0 14h16M8 15v-3m4 3V8m4 7v-5",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  download: "M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M5 19h14",
  stop: "M7 7l10 10M17 7 7 17",
  again: "M20 12a8 8 0 1 1-2.6-5.9M20 4v4h-4",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  up: "M12 19V6m0 0-5 5m5-5 5 5",
  down: "M12 5v13m0 0-5-5m5 5 5-5",
  advice: "M9.5 18h5M10.5 21h3M8.5 14.5A6 6 0 1 1 15.5 14.5c-.7.6-1 1.300-1 2h-5c0-.7-.3-1.400-1-2z",
  link: "M9 15l6-6M10 7l2-2a4 4 0 0 1 6 6l-2 2M14 17l-2 2a4 4 0 0 1-6-6l2-2",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.500 9.500h.01",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

/** A device's colour beside its name. */
export function Swatch({ device }) {
  return html`<span class="swatch" style=${{ background: colour(device) }} aria-hidden="true"></span>`;
}

/** The heading of a view, which gets the focus when the user goes there. */
export function Heading({ children }) {
  return html`<h1 tabindex="-1" id="heading">${children}</h1>`;
}

const STATES = {
  waiting: ["Waiting", "quiet"],
  running: ["Running", "busy"],
  done: ["Done", "good"],
  failed: ["Failed", "bad"],
  cancelled: ["Cancelled", "quiet"],
};

export function StateBadge({ state }) {
  const [word, tone] = STATES[state] ?? [state, "quiet"];
  return html`<span class=${`badge ${tone}`}>${word}</span>`;
}

/** How far a job is, with a part for each device's colour. */
export function Progress({ card, label }) {
  const share = card.tiles ? card.done / card.tiles : card.state === "done" ? 1 : 0;
  const parts = Object.entries(card.devices ?? {}).filter(([, tiles]) => tiles > 0);
  const total = parts.reduce((sum, [, tiles]) => sum + tiles, 0) || 1;
  return html`<div class="progress" role="progressbar" aria-label=${label} aria-valuemin="0"
      aria-valuemax="100" aria-valuenow=${Math.round(share * 100)}>
    <div style=${{ width: `${share * 100}%` }}>
      ${parts.map(
        ([device, tiles]) => html`<span key=${device}
          style=${{ width: `${(tiles / total) * 100}%`, background: colour(device) }}></span>`,
      )}
    </div>
  </div>`;
}

/** A text in which `words` of a program stand between backticks. */
export function Prose({ text }) {
  return text.split("`").map((part, at) => (at % 2 ? html`<code>${part}</code>` : part));
}

/** A sentence with a picture of nothing, where there is nothing to show. */
export function Empty({ title, children }) {
  return html`<div class="empty"><p><strong>${title}</strong></p>${children}</div>`;
}
