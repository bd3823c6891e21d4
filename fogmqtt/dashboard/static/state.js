// What all views share: the fleet, the connection, who the user is, and where the page is.

import { batch, computed, signal } from "./vendor/signals.js";
import { getJson, needsLogin, request } from "./model/api.js";
import { Connection } from "./model/connection.js";
import { Fleet, announcements } from "./model/fleet.js";
import * as routes from "./model/route.js";
import { Uploads } from "./model/uploads.js";

export const fleet = new Fleet();
export const connection = new Connection("api/events", fleet, whyRefused);
export const uploads = new Uploads(follow);

/** `{role, user}`, or null before it is known. */
export const session = signal(null);
export const mayAct = computed(() => session.value?.role === "operator");
/** The version of the dashboard that gave this page. */
let pageVersion = null;
/** Whether the dashboard was replaced by another version since the page was loaded. */
export const isOutdated = signal(false);
/** Operators for menus; null before they came. */
export const operators = signal(null);
/** Files that were dropped or chosen and not sent, as `{id, file}`. */
export const chosen = signal([]);

export const route = signal(routes.parse(""));
/** Unix seconds by the gateway's clock as far as it is known; ticks each second. */
export const now = signal(Date.now() / 1000);

let clockOffset = 0;
fleet.at.subscribe((at) => {
  if (at) clockOffset = at - Date.now() / 1000;
});
const tick = () => (now.value = Date.now() / 1000 + clockOffset);
setInterval(() => document.hidden || tick(), 1000);
document.addEventListener("visibilitychange", tick);

/** Go to a place of the page, as a click on a link does. */
export function go(place) {
  location.hash = routes.format(place);
}

/** Change the filters in the address. Typing leaves no trail of steps back. */
export function setQuery(change) {
  const place = { ...route.peek(), query: { ...route.peek().query, ...change } };
  history.replaceState(null, "", routes.format(place));
  route.value = routes.parse(location.hash);
}

export function link(view, job = "", tab = "", query = {}) {
  return routes.format({ view, job, tab, query });
}

/** With one image, the page goes to its job as soon as it is accepted. */
function follow(card, upload) {
  fleet.takeJob(card);
  const batch = uploads.batchOf(upload);
  const isWatched = route.peek().view === "submit";
  if (batch.length === 1 && isWatched) go({ view: "jobs", job: card.id });
  else if (batch.every((one) => one.state === "done")) notify(`${batch.length} images are accepted.`);
}

/** Say something to people who do not see the page. */
export function announce(text) {
  const place = document.getElementById("said");
  place.textContent = place.textContent === text ? `${text} ` : text;
}

/** Messages at the bottom of the page, `{id, text, bad}`. */
export const notices = signal([]);
let noticeNumber = 0;

export function notify(text, { bad = false } = {}) {
  const id = ++noticeNumber;
  notices.value = [...notices.value.slice(-3), { id, text, bad }];
  announce(text);
  setTimeout(() => dismiss(id), bad ? 12000 : 5000);
}

export function dismiss(id) {
  notices.value = notices.value.filter((one) => one.id !== id);
}

/** Do something that may be refused, and show why. Returns whether it was done. */
export async function attempt(action, success = "") {
  try {
    await action();
    if (success) notify(success);
    return true;
  } catch (problem) {
    notify(problem.message, { bad: true });
    return false;
  }
}

export async function loadSession() {
  try {
    const response = await request("api/session");
    const version = response.headers.get("Fogmqtt-Version");
    pageVersion ??= version;
    isOutdated.value = version !== pageVersion;
    session.value = await response.json();
    needsLogin.value = false;
  } catch (problem) {
    if (problem.status !== 401) setTimeout(loadSession, 2000);
  }
}

/** Exchange a token for a cookie. Throws a Problem. */
export async function login(token) {
  await request("api/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  await loadSession();
  batch(() => {
    needsLogin.value = false;
    connection.state.value = "connecting";
  });
  connection.restart();
}

export async function loadOperators() {
  if (operators.peek()) return;
  try {
    operators.value = (await getJson("api/operators")).operators;
  } catch (problem) {
    if (problem.status === 0 || problem.status >= 500) setTimeout(loadOperators, 3000);
  }
}

const wasActive = new Map();
fleet.listen((heard) => {
  const said = announcements(heard, wasActive);
  if (said.length) announce(said.slice(0, 3).join(" "));
});

/** A dashboard that was away may come back as another version. */
let wasAway = false;
connection.state.subscribe((link) => {
  if (link === "live" && wasAway) loadSession();
  wasAway = link === "away" || (wasAway && link !== "live");
});

async function whyRefused() {
  try {
    await request("api/session");
    return "";
  } catch (problem) {
    return problem.status === 401 ? "login" : "";
  }
}
