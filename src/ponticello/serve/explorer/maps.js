// The two linked maps: the same songs in the semantic and the preference space.

import { answer, onAnswer } from "./answer.js";
import { Cloud } from "./cloud.js";
import { byId, el } from "./dom.js";
import { describe, maps, pick } from "./map-state.js";
import { drawOverlay, inkRgb } from "./overlay.js";
import { Pane } from "./pane.js";
import { startPointer } from "./pointer.js";
import { fillTable, startTable } from "./maptable.js";
import { startSelection, take } from "./selection.js";
import { source } from "./source.js";
import { state, watch } from "./state.js";

const POLL_MS = 1500;
const STACKED_PX = 520; // narrower stages put one map above the other
const GAP_PX = 10;

let frame = 0;
let isStale = true; // whether the points need painting, or only the overlay

/** Draws in the next frame. points: draws the points too, as after moving or zooming. */
function redraw(points = true) {
  isStale ||= points;
  frame ||= requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  const [under, over] = [byId("points"), byId("overlay")];
  if (!maps.panes.length || !over.clientWidth) return;
  const ratio = Math.min(devicePixelRatio, 2);
  if (isStale) {
    const pen = under.getContext("2d");
    for (const pane of maps.panes) pane.paint(pen, inkRgb(), ratio);
    isStale = false;
    tableSoon();
  }
  drawOverlay(over, ratio);
}

let tableTimer = 0;
function tableSoon() {
  clearTimeout(tableTimer);
  tableTimer = setTimeout(() => fillTable(), 200);
}

/** Gives canvas and panes their size. */
function layOut() {
  const stage = byId("stage");
  const isStacked = stage.clientWidth < STACKED_PX && maps.panes.length === 2;
  stage.classList.toggle("is-stacked", isStacked);
  const [width, height] = [stage.clientWidth, stage.clientHeight];
  if (!width || !height) return;
  const ratio = Math.min(devicePixelRatio, 2);
  for (const canvas of [byId("points"), byId("overlay")]) {
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  }
  const two = maps.panes.length === 2;
  const paneWidth = two && !isStacked ? (width - GAP_PX) / 2 : width;
  const paneHeight = two && isStacked ? (height - GAP_PX) / 2 : height;
  maps.panes.forEach((pane, at) =>
    pane.place(
      isStacked ? 0 : at * (paneWidth + GAP_PX),
      isStacked ? at * (paneHeight + GAP_PX) : 0,
      paneWidth,
      paneHeight,
    ),
  );
  redraw();
}

function follow() {
  if (answer.generation && maps.generation && answer.generation !== maps.generation) load(); // the library has a new index
  maps.ranks = new Map();
  if (answer.mode !== "all") {
    for (const result of answer.results)
      if (maps.rows.has(result.track_id)) maps.ranks.set(maps.rows.get(result.track_id), result.rank);
  }
  maps.selected = maps.rows.get(state.selected) ?? -1;
  redraw(false);
  tableSoon();
}

function unavailable(title, text) {
  byId("maps-empty").replaceChildren(el("h3", { text: title }), el("p", { text }));
  byId("maps-empty").hidden = false;
  byId("maps").hidden = true;
}

async function load() {
  let map;
  maps.generation = null;
  try {
    map = await source.map();
  } catch (error) {
    return unavailable("No maps", error.message);
  }
  if (!map.ready) {
    unavailable("The maps are being drawn", "This takes a moment the first time; the list works meanwhile.");
    return setTimeout(load, POLL_MS);
  }
  if (!map.n)
    return unavailable("No maps", "There are no songs in the index yet. In a terminal: ponticello embed -L LIBRARY");
  const clouds = [
    ["semantic", map.semantic],
    ["preference", map.preference],
  ].filter(([, flat]) => flat);
  take([]); // the rows of the previous maps are other songs
  Object.assign(maps, {
    hover: -1,
    active: 0,
    ids: map.track_ids,
    titles: map.titles,
    artists: map.artists,
    movers: map.largest_shifts ?? [],
    generation: map.generation,
  });
  maps.rows = new Map(map.track_ids.map((id, row) => [id, row]));
  maps.panes = clouds.map(([name, flat]) => new Pane(new Cloud(flat), name));
  byId("movers").hidden = maps.panes.length < 2;
  const spaces = maps.panes.length < 2 ? "A map of the songs" : "Two maps of the songs: meaning and taste";
  const keys = "Arrow keys move, plus and minus zoom, M changes the map, Enter chooses the song at the cross, 0 shows everything.";
  byId("overlay").setAttribute("aria-label", `${spaces}. ${keys}`);
  byId("maps-empty").hidden = true;
  byId("maps").hidden = false;
  layOut();
  follow();
  describe(maps.selected);
  return undefined;
}

/** Draws the maps anew, after the library has changed. */
export const reloadMaps = load;

/** Connects maps, tools and table. */
export function startMaps() {
  startPointer(redraw);
  startTable(pick);
  startSelection(() => redraw(false));
  new ResizeObserver(layOut).observe(byId("stage"));
  onAnswer(follow);
  watch((changed) => {
    if (changed.has("blend")) redraw(false);
    if (!changed.has("selected")) return;
    follow();
    if (maps.selected >= 0) for (const pane of maps.panes) pane.bring(maps.selected);
    redraw();
    describe(maps.selected);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  const onEachPane = (run) => () => (maps.panes.forEach(run), redraw());
  byId("zoom-in").addEventListener(
    "click",
    onEachPane((pane) => pane.zoomBy(1.5)),
  );
  byId("zoom-out").addEventListener(
    "click",
    onEachPane((pane) => pane.zoomBy(1 / 1.5)),
  );
  byId("zoom-all").addEventListener(
    "click",
    onEachPane((pane) => pane.showAll()),
  );
  byId("lasso").addEventListener("click", ({ currentTarget }) => {
    maps.isLassoing = !maps.isLassoing;
    currentTarget.setAttribute("aria-pressed", String(maps.isLassoing));
    byId("overlay").classList.toggle("is-lassoing", maps.isLassoing);
  });
  byId("movers").addEventListener("click", ({ currentTarget }) => {
    maps.showsMovers = !maps.showsMovers;
    currentTarget.setAttribute("aria-pressed", String(maps.showsMovers));
    redraw(false);
  });
  byId("in-view").addEventListener("click", () => {
    const pane = maps.panes[maps.active];
    take(
      pane.cloud.inside([
        pane.under(pane.left, pane.top),
        pane.under(pane.left + pane.width, pane.top),
        pane.under(pane.left + pane.width, pane.top + pane.height),
        pane.under(pane.left, pane.top + pane.height),
      ]),
    );
  });
  load();
}
