// Mouse, touch and keyboard input on the maps: move, zoom, hover, select, draw a lasso.

import { byId } from "./dom.js";
import { describe, mapName, maps, pick } from "./map-state.js";
import { take } from "./selection.js";

const REACH_PX = 14; // largest distance of the pointer to a song
const CLICK_PX = 5; // less movement is a click
const STEP_PX = 40;
const KEY_REACH_PX = 80; // largest distance of the cross to a song, for keys
const LASSO_STEP_PX = 3;

const fingers = new Map(); // pointer id -> [x, y]
let pane = null; // the map that captured the pointer
let travelled = 0;
let redraw = () => {};

const placeOf = (event) => {
  const box = byId("overlay").getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const paneAt = ([x, y]) => maps.panes.find((candidate) => candidate.has(x, y)) ?? null;

function hover(row) {
  if (row === maps.hover) return;
  maps.hover = row;
  describe(row >= 0 ? row : maps.selected);
  redraw(false);
}

function down(event) {
  const place = placeOf(event);
  fingers.set(event.pointerId, place);
  event.currentTarget.setPointerCapture(event.pointerId);
  if (fingers.size > 1) return void (maps.lasso = null);
  pane = paneAt(place);
  travelled = 0;
  if (!pane) return;
  maps.active = maps.panes.indexOf(pane);
  if (maps.isLassoing || event.shiftKey) maps.lasso = [place];
}

function move(event) {
  const place = placeOf(event);
  const before = fingers.get(event.pointerId);
  if (!before) {
    const over = paneAt(place);
    return hover(over ? over.nearest(...place, REACH_PX) : -1);
  }
  if (!pane) return undefined;
  const [dx, dy] = [place[0] - before[0], place[1] - before[1]];
  travelled += Math.hypot(dx, dy);
  if (maps.lasso) {
    const last = maps.lasso.at(-1);
    if (Math.hypot(place[0] - last[0], place[1] - last[1]) >= LASSO_STEP_PX) maps.lasso.push(place);
    fingers.set(event.pointerId, place);
    return redraw(false);
  }
  if (fingers.size === 2) pinch(event.pointerId, before, place);
  else pane.moveBy(dx, dy);
  fingers.set(event.pointerId, place);
  return redraw();
}

/** Two fingers: the map follows their middle and zooms with their distance. */
function pinch(moving, before, place) {
  const [, fixed] = [...fingers].find(([id]) => id !== moving);
  const spread = ([x, y]) => Math.max(1, Math.hypot(x - fixed[0], y - fixed[1]));
  const middle = ([x, y]) => [(x + fixed[0]) / 2, (y + fixed[1]) / 2];
  const [from, to] = [middle(before), middle(place)];
  pane.moveBy(to[0] - from[0], to[1] - from[1]);
  pane.zoomBy(spread(place) / spread(before), ...to);
}

function up(event) {
  if (!fingers.delete(event.pointerId) || !pane) return;
  if (maps.lasso) {
    const polygon = maps.lasso.map(([x, y]) => pane.under(x, y));
    maps.lasso = null;
    if (polygon.length > 2) take(pane.cloud.inside(polygon));
    redraw(false);
  } else if (travelled < CLICK_PX && event.type === "pointerup") {
    pick(pane.nearest(...placeOf(event), REACH_PX));
  }
}

function wheel(event) {
  const place = placeOf(event);
  const over = paneAt(place);
  if (!over) return;
  event.preventDefault();
  over.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place);
  redraw();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !maps.panes.length) return;
  const active = maps.panes[maps.active];
  const middle = [active.left + active.width / 2, active.top + active.height / 2];
  const keys = {
    ArrowLeft: () => active.moveBy(STEP_PX, 0),
    ArrowRight: () => active.moveBy(-STEP_PX, 0),
    ArrowUp: () => active.moveBy(0, STEP_PX),
    ArrowDown: () => active.moveBy(0, -STEP_PX),
    "+": () => active.zoomBy(1.4),
    "=": () => active.zoomBy(1.4),
    "-": () => active.zoomBy(1 / 1.4),
    0: () => active.showAll(),
    m: () => (maps.active = (maps.active + 1) % maps.panes.length),
    Enter: () => pick(active.nearest(...middle, KEY_REACH_PX)),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
  const now = maps.panes[maps.active];
  const near = now.nearest(now.left + now.width / 2, now.top + now.height / 2, KEY_REACH_PX);
  describe(
    near,
    near < 0 ? `On ${mapName(now)} nothing is near the cross.` : `On ${mapName(now)}, nearest the cross: `,
  );
  redraw();
}

/** Connects the canvas. onChange: draws the maps. */
export function startPointer(onChange) {
  redraw = onChange;
  const canvas = byId("overlay");
  canvas.addEventListener("pointerdown", down);
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("focus", () => {
    maps.hasKeys = canvas.matches(":focus-visible");
    redraw(false);
  });
  canvas.addEventListener("blur", () => {
    maps.hasKeys = false;
    redraw(false);
  });
}
