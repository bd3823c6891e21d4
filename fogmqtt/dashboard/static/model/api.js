// Requests to the dashboard. All addresses are relative to the page's.

import { signal } from "../vendor/signals-core.js";

/** Whether the dashboard wants a login: set by any answer 401. */
export const needsLogin = signal(false);

/** Why a request was not done; `message` is a sentence for people. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || `The dashboard answered ${status}.`);
    this.status = status;
    this.job = body?.job ?? "";
    this.retryAfter = body?.retry_after_s ?? null;
  }
}

const UNREACHABLE = "The dashboard cannot be reached. The page tries again by itself.";

/** Send a request; returns the response. Throws a Problem. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Problem(0, { detail: UNREACHABLE });
  }
  if (response.ok || response.status === 304) return response;
  if (response.status === 401) needsLogin.value = true;
  throw new Problem(response.status, await response.json().catch(() => null));
}

/** Get JSON. */
export async function getJson(path, options) {
  return (await request(path, { headers: { Accept: "application/json" }, ...options })).json();
}

/** Send JSON or nothing, and get JSON. */
export async function act(method, path, body) {
  const options = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await request(path, options);
  return response.status === 204 ? null : response.json().catch(() => null);
}

/** The address of something of a job. */
export function jobUrl(id, what = "", query = {}) {
  const path = `api/jobs/${encodeURIComponent(id)}${what ? `/${what}` : ""}`;
  return withQuery(path, query);
}

export function withQuery(path, query) {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const search = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return search ? `${path}?${search}` : path;
}
