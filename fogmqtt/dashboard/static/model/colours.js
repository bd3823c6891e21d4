// One colour for each device, the same in cards, tiles and timelines.

/** The hue of the n-th device: neighbours differ most, and no two of 64 are alike. */
export function hue(index) {
  return Math.round((index * 137.508 + 245) % 360);
}

const order = [];
const places = new Map();

/** The place of a device in the order in which the page met them. */
export function place(device) {
  if (!places.has(device)) {
    places.set(device, order.length);
    order.push(device);
  }
  return places.get(device);
}

/** Give many devices their places, in the order of their names. */
export function meet(devices) {
  for (const device of [...devices].sort()) place(device);
}

/** A CSS colour for a device. `alpha` is 0 to 1. */
export function colour(device, alpha = 1) {
  return `oklch(0.66 0.15 ${hue(place(device))} / ${alpha})`;
}
