// The state of the maps, which their parts share: rows, panes, the selected song and the lasso.

import { recall, remember, select } from "./actions.js";
import { byId, countOf, nameOf } from "./dom.js";
import { source } from "./source.js";

/** panes: one or two; hover: a row or -1; selection: rows; lasso: the polygon being drawn, in canvas pixels. */
export const maps = {
  panes: [],
  ids: [],
  rows: new Map(),
  movers: [],
  ranks: new Map(),
  selected: -1,
  hover: -1,
  active: 0,
  selection: new Set(),
  lasso: null,
  isLassoing: false,
  showsMovers: true,
  hasKeys: false,
};

/** "the meaning map", or "the map" where there is one. */
export const mapName = (pane) => (maps.panes.length > 1 ? `the ${pane.label} map` : "the map");

/** The track of a row, with the title and artist that the map holds. */
export function trackOf(row) {
  return { ...recall(maps.ids[row]), title: maps.titles[row], artist: maps.artists[row] };
}

/** Describes the song of a row under the maps. */
export function describe(row, where = "") {
  const rank = maps.ranks.get(row);
  const track = row < 0 ? null : trackOf(row);
  byId("map-status").textContent = track
    ? `${where}${nameOf(track)}${track.artist ? `, ${track.artist}` : ""}${rank ? `, number ${rank} of the list` : ""}`
    : where ||
      `${countOf(maps.ids.length, "song")}${maps.panes.length === 2 ? ", each on both maps" : ""}; ${maps.showsMovers && maps.panes.length === 2 ? "lines join those that moved most" : "choose one to see its place"}`;
}

/** Selects the song of a row, on the list and on both maps. */
export function pick(row) {
  if (row < 0) return;
  remember({ ...recall(maps.ids[row]), track_id: maps.ids[row], title: maps.titles[row], artist: maps.artists[row] });
  if (recall(maps.ids[row]).has_audio === undefined) source.track(maps.ids[row]).then(remember, () => {});
  select(maps.ids[row]);
}
