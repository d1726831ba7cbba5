// The actions on songs, shared by the list, the maps, the keys and the player.

import { clock, nameOf } from "./dom.js";
import { change, state } from "./state.js";

export const MOST_TERMS = 32;

const tracks = new Map();

/** Stores a track of an answer, so that chips and lists can name it. */
export const remember = (track) => tracks.set(track.track_id, { ...tracks.get(track.track_id), ...track });

/** The stored fields of a track; at least its id. */
export const recall = (track_id) => tracks.get(track_id) ?? { track_id, title: null, artist: null };

/** Whether a track is stored. */
export const isKnown = (track_id) => tracks.has(track_id);

/** The displayed name of a term of the question. */
export function termName(term) {
  if (term.kind === "text") return `“${term.text}”`;
  if (term.kind === "upload") return term.name;
  const name = nameOf(recall(term.track_id));
  return term.kind === "part" ? `${name}, ${clock(term.start_s)} to ${clock(term.end_s)}` : name;
}

const same = (a, b) =>
  a.kind === b.kind &&
  a.text === b.text &&
  a.track_id === b.track_id &&
  a.upload === b.upload &&
  a.start_s === b.start_s;

/** Searches with this term alone. */
export const askOnly = (term) => change({ terms: [{ weight: 1, ...term }], listener: null });

/** Adds a term to the question, or changes its weight; below 0: songs unlike it. */
export function askAlso(term, weight = 1) {
  const others = state.terms.filter((kept) => !same(kept, term));
  change({ terms: [...others, { ...term, weight }].slice(-MOST_TERMS), listener: null });
}

/** Searches for songs similar to this one. */
export const askSimilar = (track_id) => askOnly({ kind: "track", track_id });

/** Changes the weight of a term of the question; null removes it. */
export function reweigh(at, weight) {
  const terms = state.terms.flatMap((term, place) =>
    place !== at ? [term] : weight === null ? [] : [{ ...term, weight }],
  );
  change({ terms });
}

/** Selects a song on list, maps and table, without a history entry. */
export const select = (track_id) => change({ selected: track_id }, false);

/** Opens one of the views. */
export const show = (tab) => change({ tab });
