// A pipeline as a form: steps from a menu with their parameters, beside the text, which stays the
// truth and can be edited by hand.

import { useMemo, useState } from "../vendor/hooks.js";
import * as pipeline from "../model/pipeline.js";
import { announce } from "../state.js";
import { html, Icon, Prose } from "./html.js";

/** `change(text)` hears of each edit. `named` are pipelines by name. */
export function Builder({ text, change, operators, named, problem }) {
  const steps = pipeline.parse(text);
  const table = useMemo(() => new Map((operators ?? []).map((one) => [one.name, one])), [operators]);
  const set = (changed) => change(pipeline.format(changed));
  return html`<div class="builder">
    ${Object.keys(named ?? {}).length > 0 &&
    html`<p class="row"><label for="named">Start with</label>
      <select id="named" onChange=${(event) => event.target.value && change(event.target.value)}>
        <option value="">a pipeline of the gateway …</option>
        ${Object.entries(named).map(([name, one]) => html`<option key=${name} value=${one} selected=${one === text}>${name}</option>`)}
      </select></p>`}
    <ol class="steps">
      ${steps.map(
        (step, at) => html`<li key=${at}><${Step} step=${step} at=${at} steps=${steps} set=${set} operators=${operators ?? []} operator=${table.get(step.name)} /></li>`,
      )}
    </ol>
    <${Add} operators=${operators} add=${(name) => set([...steps, { name, values: {} }])} />
    <label for="pipeline">Pipeline as text</label>
    <textarea id="pipeline" rows="2" spellcheck="false" autocapitalize="off" value=${text} aria-describedby="pipeline-problem"
      aria-invalid=${problem ? "true" : null} onInput=${(event) => change(event.target.value.replaceAll("\n", " "))}></textarea>
    <p id="pipeline-problem" class="complaint" role="status">${problem}</p>
  </div>`;
}

function Add({ operators, add }) {
  if (!operators) return html`<p class="quiet">The operators are loading …</p>`;
  return html`<p class="row"><label for="add">Add a step</label>
    <select id="add" value="" onChange=${(event) => {
      if (!event.target.value) return;
      add(event.target.value);
      announce(`${event.target.value} was added.`);
      event.target.value = "";
    }}>
      <option value="">choose an operator …</option>
      <${Choices} operators=${operators} />
    </select></p>`;
}

function Choices({ operators, chosen }) {
  return pipeline.grouped(operators).map(
    ([group, list]) => html`<optgroup key=${group} label=${group}>
      ${list.map((one) => html`<option key=${one.name} value=${one.name} selected=${one.name === chosen}>${one.name}</option>`)}
    </optgroup>`,
  );
}

function Step({ step, at, steps, set, operators, operator }) {
  const [help, setHelp] = useState(false);
  const name = `Step ${at + 1}`;
  const replace = (other) => set(steps.map((one, place) => (place === at ? { name: other, values: {} } : one)));
  return html`<fieldset class="step">
    <legend class="unseen">${name}: ${step.name}</legend>
    <div class="row">
      <select class="operator" aria-label=${`${name}, operator`} value=${step.name} onChange=${(event) => replace(event.target.value)}>
        ${!operator && html`<option value=${step.name} selected>${step.name || "?"}</option>`}
        <${Choices} operators=${operators} chosen=${step.name} />
      </select>
      <span class="right acts">
        <button type="button" aria-label=${`${name}: move up`} disabled=${at === 0} onClick=${() => set(pipeline.moved(steps, at, at - 1))}><${Icon} name="up" /></button>
        <button type="button" aria-label=${`${name}: move down`} disabled=${at === steps.length - 1} onClick=${() => set(pipeline.moved(steps, at, at + 1))}><${Icon} name="down" /></button>
        <button type="button" aria-label=${`${name}: remove`} onClick=${() => set(steps.filter((_, place) => place !== at))}><${Icon} name="stop" /></button>
      </span>
    </div>
    ${operator && html`<p class="small quiet"><${Prose} text=${operator.summary} />${operator.tiled ? "" : " Runs on the gateway."}</p>`}
    ${operator?.parameters?.length > 0 &&
    html`<div class="parameters">${operator.parameters.map(
      (one) => html`<${Parameter} key=${one.name} id=${`p-${at}-${one.name}`} parameter=${one} value=${pipeline.valueOf(step, one)}
        change=${(value) => set(pipeline.withValue(steps, at, one, value))} />`,
    )}</div>`}
    ${operator?.text &&
    html`<details onToggle=${(event) => setHelp(event.target.open)}><summary>About ${operator.name}</summary>${help && html`<pre>${operator.text}</pre>`}</details>`}
  </fieldset>`;
}

function Parameter({ id, parameter, value, change }) {
  const problem = pipeline.complaint(parameter, value);
  const { type, unit, summary } = parameter;
  const described = { "aria-describedby": `${id}-help`, "aria-invalid": problem ? "true" : null };
  return html`<div class="parameter">
    <label for=${id}>${parameter.name.replaceAll("_", " ")}${unit ? html` <span class="quiet">(${unit})</span>` : ""}</label>
    ${field(id, parameter, value, change, described)}
    <span id=${`${id}-help`} class=${`small ${problem ? "complaint" : "quiet"}`} title=${summary}>${problem || rangeWords(parameter)}<span class="unseen"> ${type === "bool" ? "" : summary}</span></span>
  </div>`;
}

function field(id, parameter, value, change, described) {
  const { type, minimum, maximum, step, choices } = parameter;
  if (type === "bool") {
    return html`<input id=${id} type="checkbox" checked=${value === "true"} ...${described} onChange=${(event) => change(event.target.checked)} />`;
  }
  if (type === "choice") {
    return html`<select id=${id} value=${value} ...${described} onChange=${(event) => change(event.target.value)}>
      ${choices.map((one) => html`<option key=${one} value=${one} selected=${one === value}>${one}</option>`)}</select>`;
  }
  if (type === "text") {
    return html`<input id=${id} type="text" value=${value} ...${described} onChange=${(event) => change(event.target.value)} />`;
  }
  const limits = { min: minimum, max: maximum, step: step ?? (type === "int" ? 1 : "any") };
  const hasSlider = minimum != null && maximum != null && maximum - minimum <= 4096;
  return html`<span class="number">
    ${hasSlider &&
    html`<input type="range" aria-label=${`${parameter.name}, slider`} ...${limits} step=${step ?? (type === "int" ? 1 : (maximum - minimum) / 200)} value=${value} onInput=${(event) => change(event.target.value)} />`}
    <input id=${id} type="number" inputmode="decimal" ...${limits} value=${value} ...${described} onInput=${(event) => change(event.target.value)} />
  </span>`;
}

/** A limit beyond this is none for people. */
const FAR = 1e6;

function rangeWords({ type, step, ...limits }) {
  const [minimum, maximum] = [limits.minimum, limits.maximum].map((one) => (Math.abs(one ?? FAR) < FAR ? one : null));
  if (type === "bool" || type === "choice" || type === "text") return "";
  const steps = step && step !== 1 && type === "int" ? `, steps of ${step}` : "";
  if (minimum != null && maximum != null) return `${minimum} to ${maximum}${steps}`;
  if (minimum != null) return `${minimum} or more${steps}`;
  return maximum != null ? `${maximum} or less${steps}` : "";
}
