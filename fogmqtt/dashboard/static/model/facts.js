// What a measuring pipeline found: rows for tables, and shapes to draw over the picture.

const SHAPES = {
  codes: (one) => ({ points: one.corners, label: `${one.kind} ${one.text}` }),
  objects: (one) => box(...one.box, one.class),
  components: (one) => box(one.left, one.top, one.width, one.height, String(one.number)),
  contours: (one) =>
    one.points?.length > 2
      ? { points: one.points, label: String(one.number) }
      : box(one.left, one.top, one.width, one.height, String(one.number)),
  lines: (one) => (one.x1 === undefined ? null : { points: [[one.x1, one.y1], [one.x2, one.y2]], label: "" }),
};

/** What is better seen in the picture than read. */
const DRAWN = new Set(["points", "corners", "number"]);

/** `{name, columns, rows, shapes}` for each list of things in the facts. A shape may be null. */
export function tables(facts) {
  return Object.entries(facts ?? {})
    .filter(([, list]) => isTable(list))
    .map(([name, list]) => {
      const toShape = SHAPES[name] ?? guess;
      const columns = [...new Set(list.flatMap((one) => Object.keys(one)))].filter(
        (key) => !DRAWN.has(key),
      );
      return {
        name,
        columns,
        rows: list.map((one) => columns.map((key) => cell(one[key]))),
        shapes: list.map((one) => toShape(one) ?? null),
      };
    });
}

/** The single values of the facts as `[name, text]`, without zeros of what was left out. */
export function figures(facts) {
  return Object.entries(facts ?? {})
    .filter(([name, value]) => typeof value !== "object" && !(value === 0 && name !== "count"))
    .map(([name, value]) => [name.replaceAll("_", " "), cell(value)]);
}

/** The counts of a histogram by channel, blue, green and red; or null. */
export function histogram(facts) {
  const channels = facts?.bins ? facts.channels : null;
  return Array.isArray(channels?.[0]) ? channels : null;
}

function isTable(list) {
  return Array.isArray(list) && list.length > 0 && list.every((one) => one?.constructor === Object);
}

function guess(one) {
  if (Array.isArray(one.box) && one.box.length === 4) return box(...one.box, one.name ?? "");
  if (Array.isArray(one.corners)) return { points: one.corners, label: one.text ?? "" };
  const known = ["left", "top", "width", "height"].every((key) => Number.isFinite(one[key]));
  return known ? box(one.left, one.top, one.width, one.height, "") : null;
}

function box(left, top, width, height, label) {
  const [right, bottom] = [left + width, top + height];
  return { points: [[left, top], [right, top], [right, bottom], [left, bottom]], label };
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(cell).join(", ");
  if (typeof value === "object") {
    return Object.entries(value).map(([key, part]) => `${key} ${cell(part)}`).join(", ");
  }
  return typeof value === "number" && !Number.isInteger(value) ? String(+value.toFixed(4)) : String(value);
}
