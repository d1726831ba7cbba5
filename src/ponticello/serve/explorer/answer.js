// Requests the songs for the current state; only the answer to the latest request is shown.

import { throttled } from "./dom.js";
import { Refused, isAborted } from "./service.js";
import { source } from "./source.js";
import { asTerm, state, watch } from "./state.js";

export const PAGE = 30;
const ASKING = ["terms", "listener", "blend", "per_artist", "where"];

/** The list. mode: all (the catalogue, without scores), asked or listener. */
export const answer = {
  mode: "all",
  results: [],
  has_more: false,
  blend: 0,
  n_total: null,
  is_loading: true,
  problem: null,
};
const watchers = [];
let current = null;

/** Calls `run()` whenever `answer` has changed. */
export const onAnswer = (run) => watchers.push(run);
const publish = (values) => {
  Object.assign(answer, values);
  for (const run of watchers) run();
};

/** The state as fields of a question. */
const question = (offset) => ({
  k: PAGE,
  offset,
  blend: state.blend,
  per_artist: state.per_artist,
  where: state.where,
});

/** The question on the screen, for POST /api/explain; null if there is none. */
export function questionNow() {
  if (state.listener) return { user_id: state.listener, blend: state.blend };
  return state.terms.length ? { query: { terms: state.terms.map(asTerm), ...question(0) } } : null;
}

async function fetchPage(offset, signal) {
  if (state.listener)
    return { mode: "listener", ...(await source.recommend(state.listener, question(offset), signal)) };
  if (state.terms.length) {
    const ask = { terms: state.terms.map(asTerm), exclude: [], ...question(offset) };
    return { mode: "asked", ...(await source.search(ask, signal)) };
  }
  const { tracks, n_total } = await source.tracks("", PAGE, offset, state.where, signal);
  return { mode: "all", results: tracks, n_total, has_more: offset + tracks.length < n_total };
}

/** Requests the first page, or the next one. */
export async function ask(further = false) {
  current?.abort();
  const request = (current = new AbortController());
  const offset = further ? answer.results.length : 0;
  publish({ is_loading: true });
  try {
    const page = await fetchPage(offset, request.signal);
    if (current !== request) return;
    const listedIds = new Set(further ? answer.results.map((result) => result.track_id) : []);
    const results = page.results.filter((result) => !listedIds.has(result.track_id));
    publish({
      n_total: null,
      ...page,
      results: further ? [...answer.results, ...results] : results,
      is_loading: false,
      problem: null,
    });
  } catch (error) {
    if (isAborted(error) || current !== request) return;
    const problem = error instanceof Refused ? error : new Refused("internal", String(error.message));
    publish({ is_loading: false, problem, ...(further ? {} : { results: [], has_more: false, n_total: null }) });
  }
}

/** Requests an answer, once for many calls in a row; the last state counts. */
export const askSoon = throttled(() => ask(), 70);

watch((changed) => {
  if (ASKING.some((name) => changed.has(name))) askSoon();
});
