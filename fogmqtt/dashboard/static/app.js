// The page: its frame, its state of connection, and the view that the address names.

import { render } from "./vendor/preact.js";
import { useEffect } from "./vendor/hooks.js";
import { effect } from "./vendor/signals.js";
import { needsLogin } from "./model/api.js";
import { count, duration } from "./model/format.js";
import * as routes from "./model/route.js";
import * as state from "./state.js";
import { FleetView } from "./views/fleet.js";
import { HistoryView } from "./views/history.js";
import { html, Icon } from "./views/html.js";
import { JobView } from "./views/job.js";
import { LoginView } from "./views/login.js";
import { SimulateView } from "./views/simulate.js";
import { StreamsView } from "./views/streams.js";
import { SubmitView, takeFiles } from "./views/submit.js";

const { fleet, connection, route, session } = state;

const VIEWS = { fleet: FleetView, streams: StreamsView, jobs: JobView, history: HistoryView, submit: SubmitView, simulate: SimulateView };
const PLACES = [
  ["fleet", "Fleet"],
  ["streams", "Streams"],
  ["history", "Jobs"],
  ["submit", "Submit"],
  ["simulate", "Simulate"],
];

function App() {
  const place = route.value;
  useEffect(() => {
    document.title = title(place);
    document.getElementById("heading")?.focus({ preventScroll: false });
  }, [place.view, place.job, place.tab]);
  if (needsLogin.value || connection.state.value === "login") return html`<${LoginView} />`;
  const View = VIEWS[place.view];
  return html`
    <a class="skip" href="#heading" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/fleet"><img src="icon.svg" alt="" width="24" height="24" />fogmqtt</a>
      <nav aria-label="Views">
        ${PLACES.map(
          ([view, name]) => html`<a key=${view} href=${state.link(view)} aria-current=${
            current(place) === view ? "page" : null
          }><${Icon} name=${view} /><span>${name}</span></a>`,
        )}
      </nav>
      <${Link} />
    </header>
    <${Banner} />
    <main><${View} key=${place.view + place.job} place=${place} /></main>
    <${Notices} />
  `;
}

function current(place) {
  return place.view === "jobs" ? "history" : place.view;
}

function title(place) {
  const name = PLACES.find(([view]) => view === current(place))?.[1] ?? "";
  const job = place.job && fleet.job(place.job).peek()?.name;
  return `${job || name} · fogmqtt`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("heading")?.focus();
}

/** Where the page is connected to, in a few words. */
function Link() {
  const gateway = fleet.gateway.value;
  const [tone, words] = linkWords(gateway);
  const role = session.value?.role === "viewer" ? " · you may look, not act" : "";
  return html`<p class=${`link ${tone}`}><span class="dot" aria-hidden="true"></span>${words}${role}</p>`;
}

function linkWords(gateway) {
  if (connection.state.value === "away") return ["bad", "Dashboard away"];
  if (connection.state.value === "connecting" || !gateway) return ["quiet", "Connecting"];
  if (connection.gatewayAway.value) return ["bad", "Gateway away"];
  if (!gateway.connected) return ["bad", "No broker"];
  return gateway.paused ? ["warn", `${gateway.id}, paused`] : ["good", gateway.id];
}

/** What is wrong with all that is shown, and since when. */
function Banner() {
  const said = bannerSentence();
  return html`<div role="status" class=${said ? "banner" : "unseen"}>${said}</div>`;
}

function bannerSentence() {
  const gateway = fleet.gateway.value;
  const at = fleet.at.value;
  const old = Math.round(state.now.value - at);
  const age = at && old >= 2 ? ` What you see is ${duration(old)} old.` : "";
  if (connection.state.value === "away") {
    return `The dashboard does not answer. The page connects again by itself.${age}`;
  }
  const away = connection.gatewayAway.value;
  if (away) return `${away}${age}`;
  if (gateway && !gateway.connected) {
    return `The gateway has no connection to its broker ${gateway.broker}. Devices get no tiles until it is back.${age}`;
  }
  if (gateway?.paused) return `The gateway accepts no images now: ${gateway.paused}`;
  if (state.isOutdated.value) {
    return html`The dashboard is another version than this page. <button onClick=${() => location.reload()}>Load the page again</button>`;
  }
  return "";
}

function Notices() {
  return html`<div class="notices">
    ${state.notices.value.map(
      (one) => html`<p key=${one.id} class=${one.bad ? "bad" : ""}>${one.text}
        <button class="plain-button" aria-label="Close this message" onClick=${() => state.dismiss(one.id)}><${Icon} name="stop" /></button></p>`,
    )}
  </div>`;
}

/** The tab of a browser shows how many jobs run. */
effect(() => {
  const running = fleet.running.value.length;
  const text = title(route.value);
  document.title = running ? `${count(running, "job")} · ${text}` : text;
});

/** Images may be dropped and pasted anywhere. */
function acceptFiles() {
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", state.mayAct.value);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    offer(event.dataTransfer?.files);
  });
  addEventListener("paste", (event) => offer(event.clipboardData?.files));
}

function offer(files) {
  if (!files?.length || !state.mayAct.value) return;
  takeFiles(files);
  if (route.value.view !== "submit") state.go({ view: "submit" });
}

async function start() {
  const token = routes.token(location.hash);
  if (token) history.replaceState(null, "", "#/fleet"); // a token must not stay in the address
  route.value = routes.parse(location.hash);
  addEventListener("hashchange", () => (route.value = routes.parse(location.hash)));
  acceptFiles();
  if (!token) {
    state.loadSession(); // the answers come while the page is drawn for the first time
    connection.start();
  }
  const place = document.getElementById("app");
  place.textContent = "";
  render(html`<${App} />`, place);
  if (!token) return;
  await state.attempt(() => state.login(token));
  connection.start();
}

start();
