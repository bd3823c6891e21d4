// Files on their way to the gateway, a few at a time, each with its progress.

import { signal } from "../vendor/signals-core.js";
import { needsLogin, Problem, withQuery } from "./api.js";

const AT_ONCE = 2;
const TRIES = 4;
/** Answers after which the same upload may go well: too many, or nobody there now. */
const TRANSIENT = new Set([0, 429, 502, 503, 504]);

export class Uploads {
  /** `done(card, upload)` hears of each accepted job. */
  constructor(done) {
    this._done = done;
    this._active = 0;
    this._batches = 0;
    this._waiting = [];
    /** `{key, batch, file, state, sent, error, job}`: waiting, sending, accepting, done or failed. */
    this.list = signal([]);
  }

  /** Send files that belong together. A lost connection is tried again, and nothing is doubled. */
  add(files, query) {
    const batch = ++this._batches;
    const added = files.map((file) => ({ key: randomKey(), batch, file, query, state: "waiting", sent: 0, error: "", job: "" }));
    this.list.value = [...this.list.value, ...added];
    this._waiting.push(...added.map((one) => one.key));
    for (let at = 0; at < AT_ONCE; at++) this._next();
  }

  /** The uploads that belong to one. */
  batchOf(upload) {
    return this.list.value.filter((one) => one.batch === upload.batch);
  }

  remove(key) {
    this.list.value = this.list.value.filter((one) => one.key !== key);
  }

  _set(key, change) {
    this.list.value = this.list.value.map((one) => (one.key === key ? { ...one, ...change } : one));
  }

  async _next() {
    if (this._active >= AT_ONCE || !this._waiting.length) return;
    this._active++;
    const key = this._waiting.shift();
    const upload = this.list.value.find((one) => one.key === key);
    try {
      const card = await this._sent(upload);
      this._set(key, { state: "done", sent: 1, job: card.id });
      this._done(card, upload);
    } catch (problem) {
      this._set(key, { state: "failed", error: problem.message });
    }
    this._active--;
    this._next();
  }

  async _sent(upload) {
    for (let tried = 1; ; tried++) {
      try {
        this._set(upload.key, { state: "sending", sent: 0 });
        return await send(upload, (sent) =>
          this._set(upload.key, { sent, state: sent >= 1 ? "accepting" : "sending" }),
        );
      } catch (problem) {
        if (tried >= TRIES || !TRANSIENT.has(problem.status)) throw problem;
        const wait = problem.retryAfter ?? tried;
        this._set(upload.key, { state: "waiting", error: "" });
        await new Promise((resume) => setTimeout(resume, 1000 * wait));
      }
    }
  }
}

/** XMLHttpRequest, since fetch does not tell the progress of an upload. */
function send({ key, file, query }, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", withQuery("api/jobs", { name: file.name, ...query }));
    request.responseType = "json";
    request.setRequestHeader("Idempotency-Key", key);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(1, event.total));
    request.onload = () => {
      if (request.status === 401) needsLogin.value = true;
      if (request.status < 300 && request.response?.id) resolve(request.response);
      else reject(new Problem(request.status, request.response));
    };
    request.onerror = () =>
      reject(new Problem(0, { detail: "The connection broke during the upload." }));
    request.send(file);
  });
}

/** A page without TLS has no crypto.randomUUID. */
function randomKey() {
  const numbers = crypto.getRandomValues(new Uint8Array(16));
  return [...numbers].map((one) => one.toString(16).padStart(2, "0")).join("");
}
