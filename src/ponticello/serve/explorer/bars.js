// The two-part bar: the semantic and the preference component of a score, to either side of zero.

import { el } from "./dom.js";

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

const signed = (value) => value.toFixed(2).replace("-", "−");

/** "2.31 = 1.50 + 0.81", as the parts say it. */
export const sum = ({ score, semantic, preference }) =>
  `${signed(score)} = ${signed(semantic)} ${preference < 0 ? "−" : "+"} ${Math.abs(preference).toFixed(2)}`;

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
