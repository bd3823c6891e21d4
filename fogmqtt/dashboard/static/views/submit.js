// Submit: images by drop, paste, choice or camera, a pipeline with a preview, and the uploads.

import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { act, jobUrl, request, withQuery } from "../model/api.js";
import { bytes, count, size } from "../model/format.js";
import { smallCopy } from "../model/small_copy.js";
import { announce, attempt, chosen, fleet, go, link, loadOperators, mayAct, operators, setQuery, uploads } from "../state.js";
import { Builder } from "./builder.js";
import { Empty, Heading, html, Icon } from "./html.js";

const TRY_MS = 350;
let fileNumber = 0;

/** Add files that were dropped, pasted or chosen. */
export function takeFiles(files) {
  const added = [...files].map((file) => ({ id: ++fileNumber, file }));
  chosen.value = [...chosen.value, ...added];
  announce(`${count(added.length, "file")} added.`);
}

export function SubmitView({ place }) {
  useEffect(() => void loadOperators(), []);
  const gateway = fleet.gateway.value;
  const { repeat = "", pipeline: asked } = place.query;
  const text = asked ?? startPipeline(gateway);
  const [selected, setSelected] = useState(0);
  const [options, setOptions] = useState({ format: "", priority: "0", verify: false });
  const files = chosen.value;
  const current = files.find((one) => one.id === selected) ?? files[0];
  const copy = useSmallCopy(repeat ? repeat : current?.file);
  const tried = useTrial(copy, text);

  if (!mayAct.value) {
    return html`<${Heading}>Submit<//><${Empty} title="You may look, not act."><p>Log in with the operator's token to submit images.</p><//>`;
  }

  const send = async (event) => {
    event.preventDefault();
    if (repeat) return void attempt(() => repeatJob(repeat, text, options.priority));
    const query = { pipeline: text, ...options, verify: options.verify ? "true" : "", priority: options.priority === "0" ? "" : options.priority };
    uploads.add(files.map(({ file }) => file), query);
    announce(`${count(files.length, "upload")} started.`);
    chosen.value = [];
  };

  const canSend = (repeat || files.length > 0) && text.trim() && !gateway?.paused;
  return html`
    <${Heading}>${repeat ? "Run again" : "Submit"}<//>
    <form class="submit" onSubmit=${send}>
      <div>
        ${repeat
          ? html`<p>The image of <a href=${link("jobs", repeat)}>${fleet.job(repeat).value?.name || repeat}</a>. <a href=${link("submit", "", "", { pipeline: text })}>Choose another image</a></p>`
          : html`<${Pick} files=${files} current=${current} select=${setSelected} />`}
        <${Preview} copy=${copy} tried=${tried} hasImage=${Boolean(repeat || current)} />
      </div>
      <div>
        <h2>Pipeline</h2>
        <${Builder} text=${text} change=${(one) => setQuery({ pipeline: one })} operators=${operators.value} named=${gateway?.pipelines} problem=${tried.problem} />
        <${Options} options=${options} set=${setOptions} formats=${gateway?.formats} repeat=${repeat} />
        ${gateway?.paused && html`<p class="complaint">No image is accepted now: ${gateway.paused}</p>`}
        <button class="primary big" disabled=${!canSend}>${repeat ? "Run again" : files.length > 1 ? `Submit ${files.length} images` : "Submit"}</button>
      </div>
    </form>
    <${UploadList} />
  `;
}

function startPipeline(gateway) {
  if (!gateway) return "";
  const { default_pipeline: name, pipelines = {} } = gateway;
  return pipelines[name] ?? (name || Object.values(pipelines)[0] || "gray | canny low=50 high=150");
}

async function repeatJob(job, pipeline, priority) {
  const query = { pipeline, priority: priority === "0" ? "" : priority };
  const made = await act("POST", jobUrl(job, "repeat", query));
  fleet.takeJob(made);
  go({ view: "jobs", job: made.id });
}

function Pick({ files, current, select }) {
  const take = (event) => {
    takeFiles(event.target.files);
    event.target.value = "";
  };
  const remove = (id) => (chosen.value = chosen.value.filter((one) => one.id !== id));
  return html`<div class="drop">
    <p>Drop images anywhere on this page, paste one, or</p>
    <p class="row">
      <label class="button"><${Icon} name="image" />Choose files<input class="unseen" type="file" multiple accept="image/*,.tif,.tiff,.heic,.heif,.jp2,.hdr,.pgm,.ppm" onChange=${take} /></label>
      <label class="button"><${Icon} name="camera" />Take a picture<input class="unseen" type="file" accept="image/*" capture="environment" onChange=${take} /></label>
    </p>
    ${files.length > 0 &&
    html`<ul class="files">${files.map(({ id, file }) => html`<li key=${id} class=${id === current?.id ? "selected" : ""}>
      <button type="button" class="plain-button grow" aria-pressed=${id === current?.id} onClick=${() => select(id)}>${file.name || "pasted image"} <span class="quiet small">${bytes(file.size)}</span></button>
      <button type="button" class="plain-button" aria-label=${`Remove ${file.name}`} onClick=${() => remove(id)}><${Icon} name="stop" /></button>
    </li>`)}</ul>`}
  </div>`;
}

/** The small copy of a file, or of the original of a job; undefined while it is made. */
function useSmallCopy(source) {
  const [made, setMade] = useState({ source: null, copy: null });
  useEffect(() => {
    if (!source) return undefined;
    let isOver = false;
    const blob = typeof source === "string" ? originalOf(source) : Promise.resolve(source);
    blob.then(smallCopy).catch(() => null).then((copy) => isOver || setMade({ source, copy }));
    return () => (isOver = true);
  }, [source]);
  return source && made.source === source ? made.copy : source ? undefined : null;
}

async function originalOf(job) {
  const query = { of: "original", max_side: 640, format: "png" };
  return (await request(jobUrl(job, "preview", query))).blob();
}

/** What a pipeline makes of the small copy: `{bitmap, facts, problem, busy}`. */
function useTrial(copy, text) {
  const [tried, setTried] = useState({});
  useEffect(() => {
    if (!copy || !text.trim()) return void setTried({});
    const end = new AbortController();
    const timer = setTimeout(async () => {
      setTried((old) => ({ ...old, busy: true }));
      try {
        const options = { method: "POST", body: copy.blob, signal: end.signal, headers: { "Content-Type": copy.blob.type } };
        const response = await request(withQuery("api/try", { pipeline: text }), options);
        setTried({ bitmap: await createImageBitmap(await response.blob()) });
      } catch (problem) {
        if (problem.name !== "AbortError") setTried((old) => ({ bitmap: old.bitmap, stale: true, problem: problem.message }));
      }
    }, TRY_MS);
    return () => {
      clearTimeout(timer);
      end.abort();
    };
  }, [copy, text]);
  return tried;
}

function Preview({ copy, tried, hasImage }) {
  if (!hasImage) return null;
  if (copy === undefined) return html`<p class="quiet" role="status">Reading the image …</p>`;
  if (copy === null) return html`<p class="advice"><${Icon} name="advice" />This browser cannot show this image, so there is no preview. The gateway may read it all the same.</p>`;
  return html`<section class="preview" aria-labelledby="preview">
    <h2 id="preview">Preview</h2>
    <div class="two">
      <figure><${Bitmap} blob=${copy.blob} width=${copy.width} height=${copy.height} label="The image before" /><figcaption class="small quiet">before</figcaption></figure>
      <figure class=${tried.busy || tried.stale ? "stale" : ""}>
        ${tried.bitmap ? html`<${Bitmap} bitmap=${tried.bitmap} label="The image after the pipeline" />` : html`<div class="blank" style=${{ aspectRatio: `${copy.width} / ${copy.height}` }}></div>`}
        <figcaption class="small quiet">${tried.problem ? "not with this pipeline" : tried.busy ? "at work …" : "after"}</figcaption></figure>
    </div>
    <p class="small quiet">On a copy of ${size(copy.height, copy.width)}; the image has ${size(copy.fullHeight, copy.fullWidth)}, so lengths in pixels look larger here.</p>
  </section>`;
}

function Bitmap({ blob, bitmap, label }) {
  const canvas = useRef(null);
  useEffect(() => {
    let isOver = false;
    const draw = (one) => {
      if (isOver || !canvas.current) return;
      Object.assign(canvas.current, { width: one.width, height: one.height });
      canvas.current.getContext("2d").drawImage(one, 0, 0);
    };
    // A picture that cannot be decoded leaves the place empty; the pipeline's complaint stands beside it.
    if (bitmap) draw(bitmap);
    else createImageBitmap(blob).then((one) => (draw(one), one.close()), () => {});
    return () => (isOver = true);
  }, [blob, bitmap]);
  return html`<canvas ref=${canvas} role="img" aria-label=${label}></canvas>`;
}

function Options({ options, set, formats, repeat }) {
  const change = (part) => set({ ...options, ...part });
  return html`<details class="options"><summary>Options</summary>
    <p class="row"><label for="priority">Priority</label>
      <input id="priority" type="number" min="-4" max="4" value=${options.priority} onInput=${(event) => change({ priority: event.target.value })} /></p>
    ${!repeat && html`
      <p class="row"><label for="format">Format of the result</label>
        <select id="format" value=${options.format} onChange=${(event) => change({ format: event.target.value })}>
          <option value="">as the gateway is configured</option>
          ${Object.keys(formats ?? {}).map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select></p>
      <p><label><input type="checkbox" checked=${options.verify} onChange=${(event) => change({ verify: event.target.checked })} /> Compare the result with one machine's</label></p>`}
  </details>`;
}

const WORDS = { waiting: "waits", sending: "is sent", accepting: "is being accepted", done: "accepted", failed: "failed" };

function UploadList() {
  const list = uploads.list.value;
  if (!list.length) return null;
  return html`<section aria-labelledby="uploads"><h2 id="uploads">Uploads</h2>
    <ul class="uploads">${[...list].reverse().map((one) => html`<li key=${one.key} class="card">
      <p class="row"><strong>${one.file.name || "pasted image"}</strong> <span class="quiet">${WORDS[one.state]}</span>
        ${one.job && html`<a class="right" href=${link("jobs", one.job)}>See the job</a>`}
        ${(one.state === "failed" || one.state === "done") && html`<button type="button" class="plain-button" aria-label=${`Forget ${one.file.name}`} onClick=${() => uploads.remove(one.key)}><${Icon} name="stop" /></button>`}</p>
      ${(one.state === "sending" || one.state === "accepting") && html`<progress max="1" value=${one.sent} aria-label=${`Upload of ${one.file.name}`}></progress>`}
      ${one.error && html`<p class="complaint small" role="alert">${one.error}</p>`}
    </li>`)}</ul></section>`;
}
