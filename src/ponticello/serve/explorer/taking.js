// Songs taken from the maps, by lasso or all in view, and what to do with them.

import { askAlso, isKnown, remember } from "./actions.js";
import { button, byId, countOf, el } from "./dom.js";
import { listAll } from "./playlist.js";
import { source } from "./source.js";
import { change } from "./state.js";

const MOST_SEEDS = 8; // of a taken group, asked with at once
const MOST_LISTED = 1000;
let own = null;
let redrawn = () => {};

/** Marks these rows as taken and offers what can be done with them. */
export function take(rows) {
  own.taken = new Set(rows);
  render();
  redrawn();
}

async function toPlaylist() {
  const ids = [...own.taken].slice(0, MOST_LISTED).map((row) => own.ids[row]);
  for (const row of own.taken)
    if (!isKnown(own.ids[row])) remember({ track_id: own.ids[row], title: own.titles[row], artist: own.artists[row] });
  const n = listAll(ids);
  byId("map-status").textContent = `${n} ${n === 1 ? "song is" : "songs are"} new in the playlist.`;
  take([]);
  change({ tab: "playlist" });
}

function askLike() {
  const rows = [...own.taken];
  const every = Math.max(1, Math.ceil(rows.length / MOST_SEEDS));
  const terms = rows
    .filter((_, at) => at % every === 0)
    .map((row) => ({ kind: "track", track_id: own.ids[row], weight: 1 }));
  take([]);
  if (terms.length === 1) askAlso(terms[0]);
  else change({ terms, listener: null });
}

function render() {
  const box = byId("taken");
  const n = own.taken.size;
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
export function startTaking(maps, redraw) {
  own = maps;
  redrawn = redraw;
}
