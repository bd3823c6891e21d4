// Numbers, times and sizes as people read them.

/** Three significant digits: 0.123, 12.3, 1,230. */
export function number(value) {
  return grouped(Math.abs(value) >= 1000 ? Math.round(value) : Number(Number(value).toPrecision(3)));
}

/** Thousands are groups. `Intl` could do it, too, but takes 7 ms of the page's start. */
function grouped(value) {
  const [digits, rest] = String(value).split(".");
  const groups = digits.replace(/\B(?=(\d{3})+$)/g, ",");
  return rest ? `${groups}.${rest}` : groups;
}

/** `1 tile`, `12 tiles`. */
export function count(many, one, several = `${one}s`) {
  return `${grouped(many)} ${many === 1 ? one : several}`;
}

/** A duration: 0.3 ms, 850 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 days. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 0.00005) return "0 s";
  if (seconds < 0.00095) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${number(Math.round(seconds * 1000))} ms`;
  if (seconds < 59.95) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(whole / 60);
  if (minutes < 2880) return pair(Math.floor(minutes / 60), "h", minutes % 60, "min");
  return count(Math.round(minutes / 1440), "day");
}

function pair(many, unit, rest, restUnit) {
  return rest ? `${many} ${unit} ${rest} ${restUnit}` : `${many} ${unit}`;
}

/** How long ago a Unix time was: now, 5 s ago, 3 min ago; then the date. */
export function ago(then, now) {
  const seconds = Math.max(0, now - then);
  if (seconds < 1.5) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return date(then);
}

/** A Unix time as local date and time. */
export function date(unix) {
  return new Date(unix * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

const SOURCES = { page: "from the page", http: "by HTTP", mqtt: "by MQTT", python: "from Python", inbox: "from the inbox", retry: "a retry" };

/** Where a job's image came from, and who asked. */
export function sender({ source, who }) {
  return [source && (SOURCES[source] ?? `from ${source}`), who && `by ${who}`].filter(Boolean).join(", ");
}

const OUTLOOKS = {
  again: "It is tried again by itself.",
  "given-up": "Mend the receiver, then have it sent again.",
  lost: "It is not tried again.",
};

/** That a result did not reach a place: where to, why, and what comes of it. */
export function undelivered(place, { reason, outlook, server }) {
  const where = server ? `${place} (${server})` : place;
  const done = outlook === "again" ? "has not reached" : "did not reach";
  return `The result ${done} ${where}: ${reason.replace(/[.;]*$/, "")}. ${OUTLOOKS[outlook] ?? ""}`.trim();
}

/** 640 B, 12.5 kB, 3.4 MB. */
export function bytes(size) {
  if (size < 1000) return `${size} B`;
  const step = Math.min(3, Math.floor(Math.log10(size) / 3));
  return `${number(size / 1000 ** step)} ${["B", "kB", "MB", "GB"][step]}`;
}

/** Width × height and megapixels of an image; empty if it is not known. */
export function size(height, width) {
  if (!height || !width) return "";
  const mega = (height * width) / 1e6;
  return `${width} × ${height}` + (mega >= 0.1 ? ` (${number(mega)} MP)` : "");
}

/** Pixels a second. */
export function pixelRate(rate) {
  if (rate < 1e5) return rate > 0 ? `${number(rate / 1e6)} MP/s` : "0 MP/s";
  return `${number(Math.round(rate / 1e4) / 100)} MP/s`;
}
