// Where the page is, as the fragment of its address: #/jobs/abc/timeline?device=eya
//
// Everything that a user chose to see stands in the address: a link shows the same to others, and
// going back restores it. A fragment needs no server that knows it, so any sub-path works.

const VIEWS = ["fleet", "streams", "jobs", "history", "submit", "simulate"];

/** `{view, job, tab, query}` of a fragment. What is unknown leads to the fleet. */
export function parse(fragment) {
  const [path, search = ""] = fragment.replace(/^#?\/?/, "").split("?", 2);
  const [view, job = "", tab = ""] = path.split("/").map(decode);
  const query = Object.fromEntries(new URLSearchParams(search));
  if (!VIEWS.includes(view) || (view === "jobs" && !job)) {
    return { view: view === "jobs" ? "history" : "fleet", job: "", tab: "", query };
  }
  return { view, job, tab, query };
}

/** The fragment of a place. Empty values are left out of the query. */
export function format({ view, job = "", tab = "", query = {} }) {
  const path = [view, job, tab].filter(Boolean).map(encodeURIComponent).join("/");
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const search = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

/** The token of an address like #token=…, by which a user comes in the first time; or "". */
export function token(fragment) {
  const found = /^#token=([^&]+)/.exec(fragment);
  return found ? decode(found[1]) : "";
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
