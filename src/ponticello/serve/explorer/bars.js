// The two-part bar: the semantic and the preference component of a score, to either side of zero.

import { el } from "./dom.js";
import { about } from "./notices.js";

/** The range of some scores' components below and above zero, never both 0. */
export function reachOf(results) {
  let low = 0;
  let high = 0.001;
  for (const { semantic, preference } of results) {
    low = Math.max(low, Math.max(0, -semantic) + Math.max(0, -preference));
    high = Math.max(high, Math.max(0, semantic) + Math.max(0, preference));
  }
  return { low, high };
}

/** A number of hundredths as text. */
export const signed = (hundredths) => (hundredths / 100).toFixed(2).replace("-", "−");

/** The parts of a total in hundredths. They add up to the rounded total: those that rounding changed most are moved by one. */
export function hundredths(parts, total) {
  const rounded = parts.map((part) => Math.round(part * 100));
  const off = Math.round(total * 100) - rounded.reduce((sum, part) => sum + part, 0);
  const lost = (at) => (parts[at] * 100 - rounded[at]) * Math.sign(off);
  const order = [...parts.keys()].sort((a, b) => lost(b) - lost(a));
  for (const at of order.slice(0, Math.abs(off))) rounded[at] += Math.sign(off);
  return rounded;
}

/** "2.31 = 1.50 + 0.81"; with one space the score alone. */
export function sum({ score, semantic, preference }) {
  const total = signed(Math.round(score * 100));
  if (!about.has_preference) return total;
  const [first, second] = hundredths([semantic, preference], score);
  return `${total} = ${signed(first)} ${second < 0 ? "−" : "+"} ${signed(Math.abs(second))}`;
}

/** An empty bar for `fillBar`. */
export function newBar() {
  const [semantic, preference, zero] = ["part semantic", "part preference", "zero"].map((name) => el("span", { class: name }));
  return el("span", { class: "bar", "aria-hidden": "true" }, semantic, preference, zero);
}

/** Draws a score's components into a bar, on the scale of `reach`. */
export function fillBar(bar, { semantic, preference }, reach) {
  const [semanticBar, preferenceBar, zero] = bar.children;
  const whole = reach.low + reach.high;
  const percent = (value) => `${((value + reach.low) / whole) * 100}%`;
  const place = (part, from, to) => {
    part.style.left = percent(Math.min(from, to));
    part.style.width = `${(Math.abs(to - from) / whole) * 100}%`;
  };
  const sameSide = semantic >= 0 === preference >= 0;
  place(semanticBar, 0, semantic);
  place(preferenceBar, sameSide ? semantic : 0, sameSide ? semantic + preference : preference);
  zero.style.left = percent(0);
}
