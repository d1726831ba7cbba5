// Draws over the points: names, the songs of the list, the selected one, lines between the maps, the lasso.

import { colour, nameOf } from "./dom.js";
import { state } from "./state.js";
import { about } from "./notices.js";
import { maps, trackOf } from "./map-state.js";

const N_LINES = 40; // lines drawn at once, for the songs that moved most
const N_NAMED = 3; // songs of the list whose names are drawn
const FONT = "13px system-ui, sans-serif";

/** "#rrggbb" as [r, g, b]. */
const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** The colour of the points. */
export const inkRgb = () => rgbOf(colour("point"));

/** Draws everything over the points. */
export function drawOverlay(canvas, ratio) {
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const ink = {
    text: colour("ink"),
    halo: colour("paper"),
    semantic: colour("semantic"),
    preference: colour("preference"),
    accent: colour("accent"),
    frame: colour("line"),
    soft: colour("ink-soft"),
  };
  const named = [];
  frames(pen, ink);
  if (maps.panes.length === 2) lines(pen, ink);
  dots(pen, ink, named);
  marks(pen, ink, named);
  writeNames(pen, ink, named);
  if (maps.lasso) outline(pen, maps.lasso, ink);
}

/** A frame and a title per map; the space with the larger share of the blend is drawn stronger. */
function frames(pen, ink) {
  const blend = about.has_preference ? (state.blend ?? about.blend ?? 0) : 0;
  maps.panes.forEach((pane, at) => {
    const share = pane.name === "preference" ? blend : 1 - blend;
    const isActive = maps.hasKeys && at === maps.active;
    pen.globalAlpha = isActive ? 1 : 0.25 + 0.75 * share;
    pen.strokeStyle = ink[pane.name];
    pen.lineWidth = isActive ? 2.5 : 1 + 1.5 * share;
    const inset = pen.lineWidth / 2;
    pen.beginPath();
    pen.roundRect(pane.left + inset, pane.top + inset, pane.width - 2 * inset, pane.height - 2 * inset, 9);
    pen.stroke();
    pen.globalAlpha = 1;
    pen.font = `600 ${FONT}`;
    pen.fillStyle = ink[pane.name];
    const title = pane.name === "preference" ? "Taste" : "Meaning";
    if (about.has_preference) halo(pen, ink, title, pane.left + 14, pane.top + 24);
    if (isActive) cross(pen, pane, ink);
  });
}

function cross(pen, pane, ink) {
  const [x, y] = [pane.left + pane.width / 2, pane.top + pane.height / 2];
  pen.strokeStyle = ink.accent;
  pen.lineWidth = 1.5;
  pen.beginPath();
  (pen.moveTo(x - 9, y), pen.lineTo(x + 9, y), pen.moveTo(x, y - 9), pen.lineTo(x, y + 9));
  pen.stroke();
}

/** Lines that join a song's points on both maps. */
function lines(pen, ink) {
  const [first, second] = maps.panes;
  const draw = (row, alpha, width) => {
    const [from, to] = [first.at(row), second.at(row)];
    if (!first.has(...from) || !second.has(...to)) return;
    const fade = pen.createLinearGradient(...from, ...to);
    fade.addColorStop(0, ink.semantic);
    fade.addColorStop(1, ink.preference);
    Object.assign(pen, { strokeStyle: fade, globalAlpha: alpha, lineWidth: width });
    const isAcross = first.top === second.top;
    const [bendX, bendY] = isAcross ? [(to[0] - from[0]) / 2, 0] : [0, (to[1] - from[1]) / 2];
    pen.beginPath();
    pen.moveTo(...from);
    pen.bezierCurveTo(from[0] + bendX, from[1] + bendY, to[0] - bendX, to[1] - bendY, ...to);
    pen.stroke();
  };
  if (maps.showsMovers) maps.movers.slice(0, N_LINES).forEach((row, at) => draw(row, 0.5 - 0.3 * (at / N_LINES), 1));
  for (const row of new Set([maps.hover, maps.selected])) if (row >= 0) draw(row, 1, 2);
  pen.globalAlpha = 1;
}

/** The songs of the list, the first ones larger, and those of the selection. */
function dots(pen, ink, named) {
  for (const pane of maps.panes) {
    const radius = Math.max(3, pane.radius);
    pen.fillStyle = ink.accent;
    for (const row of maps.selection) {
      const place = pane.at(row);
      if (pane.has(...place)) disc(pen, place, radius + 0.5);
    }
    pen.fillStyle = ink[pane.name];
    pen.strokeStyle = ink.halo;
    pen.lineWidth = 1.5;
    for (const [row, rank] of [...maps.ranks].reverse()) {
      const place = pane.at(row);
      if (!pane.has(...place)) continue;
      disc(pen, place, radius + 4 / Math.sqrt(rank));
      pen.stroke();
      if (rank <= N_NAMED && row !== maps.selected) named.push([pane, row, place, false]);
    }
  }
}

function marks(pen, ink, named) {
  for (const row of new Set([maps.selected, maps.hover])) {
    if (row < 0) continue;
    for (const pane of maps.panes) {
      const place = pane.at(row);
      if (!pane.has(...place)) continue;
      pen.strokeStyle = row === maps.selected ? ink.accent : ink.text;
      pen.lineWidth = 2.5;
      pen.beginPath();
      pen.arc(...place, Math.max(4, pane.radius) + 4, 0, 2 * Math.PI);
      pen.stroke();
      named.push([pane, row, place, true]);
    }
  }
}

function disc(pen, [x, y], radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

/** Names without overlap: the selected and the hovered song first, then the list's by rank. */
function writeNames(pen, ink, named) {
  const taken = [];
  const isFree = (box) => taken.every(([x0, y0, x1, y1]) => box[2] < x0 || box[0] > x1 || box[3] < y0 || box[1] > y1);
  const strongFirst = [...named].reverse().sort((a, b) => Number(b[3]) - Number(a[3]));
  for (const [pane, row, place, isStrong] of strongFirst) {
    const [text, x, y] = nameAt(pen, pane, row, place, isStrong);
    const box = [x, y - 13, x + pen.measureText(text).width, y + 3];
    if (!isStrong && !isFree(box)) continue;
    taken.push(box);
    pen.fillStyle = isStrong ? ink.text : ink.soft;
    halo(pen, ink, text, x, y);
  }
}

/** A name and its start: to the right of its point or, near the edge, to the left. */
function nameAt(pen, pane, row, [x, y], isStrong) {
  const whole = nameOf(trackOf(row));
  const text = whole.length > 30 ? `${whole.slice(0, 28)}…` : whole;
  pen.font = isStrong ? `600 ${FONT}` : FONT;
  const width = pen.measureText(text).width;
  const right = x + 10 + width < pane.left + pane.width - 4;
  const lines = [pane.top + 40, pane.top + pane.height - 8];
  return [
    text,
    right ? x + 10 : Math.max(pane.left + 6, x - 10 - width),
    Math.min(lines[1], Math.max(lines[0], y + 4)),
  ];
}

function halo(pen, ink, text, x, y) {
  Object.assign(pen, { strokeStyle: ink.halo, lineWidth: 4, lineJoin: "round" });
  pen.strokeText(text, x, y);
  pen.fillText(text, x, y);
}

function outline(pen, points, ink) {
  Object.assign(pen, { strokeStyle: ink.accent, fillStyle: ink.accent, lineWidth: 2 });
  pen.beginPath();
  points.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.stroke();
  pen.globalAlpha = 0.12;
  pen.fill();
  pen.globalAlpha = 1;
}
