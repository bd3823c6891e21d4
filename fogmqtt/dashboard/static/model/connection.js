// The stream of events from the dashboard, which comes back by itself.
//
// The browser repeats a broken connection with Last-Event-ID. It gives up after an answer like 503
// or 401, and a computer that slept may hold a dead connection: then a new one is made here.

import { signal } from "../vendor/signals-core.js";

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 20;
/** A clock that jumps by more than this between two looks was asleep. */
const SLEEP_S = 20;
const LOOK_EVERY_S = 2;

export class Connection {
  /** `refused()` is asked why a stream was refused. It may answer "login". */
  constructor(url, fleet, refused) {
    this._url = url;
    this._fleet = fleet;
    this._refused = refused;
    this._failures = 0;
    /** connecting, live, away, or login. */
    this.state = signal("connecting");
    /** When the last message came, in milliseconds of the page's clock. */
    this.heardAt = signal(0);
    /** Why the dashboard does not reach the gateway; "" while it does. */
    this.gatewayAway = signal("");
  }

  start() {
    this._looked = Date.now();
    this._look = setInterval(() => this._watch(), LOOK_EVERY_S * 1000);
    document.addEventListener("visibilitychange", () => document.hidden || this._watch());
    addEventListener("online", () => this.restart());
    this.restart();
  }

  /** Connect anew, and get everything again. */
  restart() {
    this._source?.close();
    clearTimeout(this._timer);
    const source = new EventSource(this._url);
    this._source = source;
    const on = (kind, heard) =>
      source.addEventListener(kind, (event) => {
        if (source === this._source) heard(event);
      });
    on("snapshot", (event) => this._hear(event, (all) => this._fleet.snapshot(all)));
    on("update", (event) => this._hear(event, (update) => this._update(update)));
    on("link", (event) => this._hear(event, (link) => this._link(link)));
    on("error", () => this._broken());
  }

  _hear(event, apply) {
    let told;
    try {
      told = JSON.parse(event.data);
    } catch {
      this._source.close(); // something between damaged it, and what follows may lack it
      return this._again();
    }
    this._failures = 0;
    this.heardAt.value = Date.now();
    this.state.value = "live";
    apply(told);
  }

  _update(update) {
    if (!this._fleet.update(update)) this.restart();
  }

  _link({ connected, sentence }) {
    this.gatewayAway.value = connected ? "" : sentence;
  }

  _broken() {
    this.state.value = "away";
    if (this._source.readyState !== EventSource.CLOSED) return; // the browser tries again
    this._again();
  }

  /** Connect after a pause, which grows, unless the dashboard wants a login. */
  _again() {
    this.state.value = "away";
    const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this._failures++);
    this._refused().then((why) => {
      if (why === "login") this.state.value = "login";
      else this._timer = setTimeout(() => this.restart(), wait * 1000);
    });
  }

  _watch() {
    const slept = Date.now() - this._looked > (LOOK_EVERY_S + SLEEP_S) * 1000;
    this._looked = Date.now();
    if (slept && this.state.value !== "login") this.restart();
  }
}
