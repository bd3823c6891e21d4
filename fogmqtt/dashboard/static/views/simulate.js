// What would more boards bring: the predicted Gantt chart of a job on the fleet as it is now.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { getJson, withQuery } from "../model/api.js";
import { duration } from "../model/format.js";
import { fleet, setQuery } from "../state.js";
import { Heading, html } from "./html.js";
import { Gantt } from "./gantt.js";

const TYPING_MS = 300;
const DEFAULTS = { height: "3000", width: "4000", channels: "3", more: "2", like: "" };

export function SimulateView({ place }) {
  const gateway = fleet.gateway.value;
  const newest = fleet.job(fleet.jobIds.value[0]).value;
  const start = { ...DEFAULTS, pipeline: newest?.pipeline ?? gateway?.pipelines?.[gateway.default_pipeline] ?? "gray | canny" };
  if (newest?.height) Object.assign(start, { height: String(newest.height), width: String(newest.width) });
  const first = useRef(null); // a later job must not change what the user looks at
  if (gateway) first.current ??= start;
  const values = { ...(first.current ?? start), ...place.query };
  const { forecast, problem, busy } = useForecast(values, Boolean(gateway));
  const set = (name) => (event) => setQuery({ [name]: event.target.value });
  const rows = forecast ? ganttRows(forecast) : [];
  return html`
    <${Heading}>What would more boards bring?<//>
    <form class="simulate card" onSubmit=${(event) => event.preventDefault()}>
      <p class="wide"><label for="s-pipeline">Pipeline</label><input id="s-pipeline" value=${values.pipeline} onInput=${set("pipeline")} /></p>
      <p><label for="s-width">Width (pixels)</label><input id="s-width" type="number" min="1" value=${values.width} onInput=${set("width")} /></p>
      <p><label for="s-height">Height (pixels)</label><input id="s-height" type="number" min="1" value=${values.height} onInput=${set("height")} /></p>
      <p><label for="s-more">More boards: <output>${values.more}</output></label><input id="s-more" type="range" min="0" max="16" value=${values.more} onInput=${set("more")} /></p>
      <p><label for="s-like">Each as fast as</label><select id="s-like" value=${values.like} onChange=${set("like")}>
        <option value="">the median device</option>
        ${fleet.deviceIds.value.map((id) => html`<option key=${id} value=${id} selected=${id === values.like}>${id}</option>`)}
      </select></p>
    </form>
    <div role="status" class=${busy ? "stale" : ""}>
      ${problem && html`<p class="complaint">${problem}</p>`}
      ${forecast && html`
        <p class="lead">${forecast.sentence}</p>
        <div class="versus">
          <p><span class="quiet">The fleet as it is</span><strong>${duration(forecast.seconds)}</strong></p>
          <p><span class="quiet">With ${values.more} more</span><strong>${duration(forecast.seconds_with_more)}</strong></p>
        </div>`}
    </div>
    ${rows.length > 0 && html`<${Gantt} rows=${rows} end=${forecast.seconds_with_more} label="Predicted work of each worker with the new boards" />`}
  `;
}

function useForecast(values, isReady) {
  const [state, setState] = useState({});
  const { pipeline, height, width, channels, more, like } = values;
  useEffect(() => {
    if (!isReady || !pipeline.trim() || !(height > 0) || !(width > 0)) return undefined;
    const end = new AbortController();
    const timer = setTimeout(async () => {
      setState((old) => ({ ...old, busy: true }));
      try {
        const path = withQuery("api/forecast", { pipeline, height, width, channels, more, like });
        setState({ forecast: await getJson(path, { signal: end.signal }) });
      } catch (problem) {
        if (problem.name !== "AbortError") setState({ problem: problem.message });
      }
    }, TYPING_MS);
    return () => {
      clearTimeout(timer);
      end.abort();
    };
  }, [pipeline, height, width, channels, more, like, isReady]);
  return state;
}

function ganttRows({ rows, bars }) {
  const made = rows.map((name) => ({ name, device: name.split(/[ /:]/)[0], bars: [] }));
  for (const [row, begin, end, tile] of bars) {
    made[row]?.bars.push({ begin, end, tile, tone: "compute", label: `Tile ${tile}` });
  }
  return made;
}
