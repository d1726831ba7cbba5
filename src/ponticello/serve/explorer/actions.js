// What can be done with a song, once, for the list, the maps, the keys and the player alike.

import { clock, nameOf } from "./dom.js";
import { change, state } from "./state.js";

export const MOST_TERMS = 32;

const known = new Map();

/** Remembers a track that an answer brought, so that chips and lists can name it. */
export const remember = (track) => known.set(track.track_id, { ...known.get(track.track_id), ...track });

/** What is known of a track; at least its id. */
export const recall = (track_id) => known.get(track_id) ?? { track_id, title: null, artist: null };

/** Has anything brought this track yet? */
export const isKnown = (track_id) => known.has(track_id);

/** What a term of the question is called. */
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

/** Asks with this term alone. */
export const askOnly = (term) => change({ terms: [{ weight: 1, ...term }], listener: null });

/** Adds a term to the question, or turns the one that is there; weight below 0: away from it. */
export function askAlso(term, weight = 1) {
  const others = state.terms.filter((one) => !same(one, term));
  change({ terms: [...others, { ...term, weight }].slice(-MOST_TERMS), listener: null });
}

/** Songs similar to this one. */
export const askSimilar = (track_id) => askOnly({ kind: "track", track_id });

/** Changes or, with null, removes the term at a place of the question. */
export function reweigh(at, weight) {
  const terms = state.terms.flatMap((term, place) =>
    place !== at ? [term] : weight === null ? [] : [{ ...term, weight }],
  );
  change({ terms });
}

/** Marks a song on list, maps and table; not a step of the history. */
export const select = (track_id) => change({ selected: track_id }, false);

/** Opens one of the views. */
export const show = (tab) => change({ tab });
