// The text of a pipeline and its steps for a form: gray | canny low=50 high=150
//
// The gateway checks a pipeline. This only takes it apart, so that a menu can change it.

/** `[{name, values: {key: text}, stray: [text]}]`. `stray` are words that are no `key=value`. */
export function parse(text) {
  if (!text.trim()) return [];
  return text.split("|").map((part) => {
    const [name = "", ...words] = part.trim().split(/\s+/).filter(Boolean);
    const values = {};
    const stray = [];
    for (const word of words) {
      const at = word.indexOf("=");
      if (at > 0) values[word.slice(0, at)] = word.slice(at + 1);
      else stray.push(word);
    }
    return { name, values, stray };
  });
}

/** The text of steps. */
export function format(steps) {
  return steps
    .map(({ name, values, stray = [] }) =>
      [name, ...Object.entries(values).map(([key, value]) => `${key}=${value}`), ...stray].join(" "),
    )
    .join(" | ");
}

/** Steps with one value changed. A value that equals the default, or is empty, is left out. */
export function withValue(steps, index, parameter, value) {
  return steps.map((step, at) => {
    if (at !== index) return step;
    const values = { ...step.values };
    const text = value === true ? "true" : value === false ? "false" : String(value).trim();
    if (text === "" || (!parameter.required && text === textOf(parameter.default))) {
      delete values[parameter.name];
    } else {
      values[parameter.name] = text.replace(/[\s|]+/g, "");
    }
    return { ...step, values };
  });
}

/** The value of a parameter in a step, as text; its default if the step does not say. */
export function valueOf(step, parameter) {
  return step.values[parameter.name] ?? textOf(parameter.default);
}

/** Steps with the one at `from` moved to `to`. */
export function moved(steps, from, to) {
  if (to < 0 || to >= steps.length) return steps;
  const result = [...steps];
  result.splice(to, 0, ...result.splice(from, 1));
  return result;
}

/** What a user should know about a value before it is sent; "" if nothing. */
export function complaint(parameter, text) {
  if (text === "") return parameter.required ? "needed" : "";
  if (parameter.type === "choice" && parameter.choices.length) {
    return parameter.choices.includes(text) ? "" : `one of ${parameter.choices.join(", ")}`;
  }
  if (parameter.type !== "int" && parameter.type !== "float") return "";
  const value = Number(text);
  if (!Number.isFinite(value)) return "a number";
  if (parameter.type === "int" && !Number.isInteger(value)) return "a whole number";
  if (parameter.minimum != null && value < parameter.minimum) return `${parameter.minimum} or more`;
  if (parameter.maximum != null && value > parameter.maximum) return `${parameter.maximum} or less`;
  return "";
}

/** Operators by group, groups and names in alphabetical order. */
export function grouped(operators) {
  const groups = new Map();
  for (const one of [...operators].sort((a, b) => a.name.localeCompare(b.name))) {
    groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  }
  return [...groups].sort(([a], [b]) => a.localeCompare(b));
}

function textOf(value) {
  return value == null ? "" : String(value);
}
