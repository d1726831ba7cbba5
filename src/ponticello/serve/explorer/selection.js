// The selection of songs on the maps, by lasso or all in view, and its actions.

import { askAlso, isKnown, remember } from "./actions.js";
import { button, byId, countOf, el } from "./dom.js";
import { maps } from "./map-state.js";
import { listAll } from "./playlist.js";
import { source } from "./source.js";
import { change } from "./state.js";

const MOST_SEEDS = 8; // of a selection, used as terms at once
const MOST_LISTED = 1000;
let redrawn = () => {};

/** Selects these rows and offers actions on them. */
export function take(rows) {
  maps.selection = new Set(rows);
  render();
  redrawn();
}

async function toPlaylist() {
  const ids = [...maps.selection].slice(0, MOST_LISTED).map((row) => maps.ids[row]);
  for (const row of maps.selection)
    if (!isKnown(maps.ids[row])) remember({ track_id: maps.ids[row], title: maps.titles[row], artist: maps.artists[row] });
  const n = listAll(ids);
  byId("map-status").textContent = `${n} ${n === 1 ? "song is" : "songs are"} new in the playlist.`;
  take([]);
  change({ tab: "playlist" });
}

function askLike() {
  const rows = [...maps.selection];
  const every = Math.max(1, Math.ceil(rows.length / MOST_SEEDS));
  const terms = rows
    .filter((_, at) => at % every === 0)
    .map((row) => ({ kind: "track", track_id: maps.ids[row], weight: 1 }));
  take([]);
  if (terms.length === 1) askAlso(terms[0]);
  else change({ terms, listener: null });
}

function render() {
  const box = byId("selection");
  const n = maps.selection.size;
  box.hidden = n === 0;
  if (!n) return;
  box.replaceChildren(
    el("span", { role: "status", text: `${countOf(n, "song")} taken` }),
    button("Into the playlist", toPlaylist, { class: "primary" }),
    source.isFolder ? "" : button(n > MOST_SEEDS ? `Songs like ${MOST_SEEDS} of them` : "Songs like these", askLike),
    button("Let go", () => take([])),
  );
}

/** Connects with the maps. */
export function startSelection(redraw) {
  redrawn = redraw;
}
