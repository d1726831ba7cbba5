// Answers from the files that `ponticello export-explorer` wrote, without a service.
// Neighbours are stored with the unweighted score of each space, so that every blend is exact.

import { Refused } from "./service.js";

const NEEDS_SERVICE = "This is a copy of the explorer without its service";
const kept = new Map();

function file(name) {
  if (!kept.has(name)) {
    const loading = fetch(`data/${name}.json`).then((response) => {
      if (!response.ok) throw new Refused("gone", `The file data/${name}.json of this copy is missing.`);
      return response.json();
    });
    loading.catch(() => kept.delete(name));
    kept.set(name, loading);
  }
  return kept.get(name);
}

const refuse = (what) =>
  Promise.reject(new Refused("needs_service", `${NEEDS_SERVICE}: ${what} needs "ponticello serve".`));

export const isFolder = true;
export const library = () => file("library");
export const map = () => file("map");
export const isBack = () =>
  library().then(
    () => true,
    () => false,
  );
export const audience = () => refuse("the audience of a song");
export const listeners = () => refuse("rediscovery for a listener");
export const recommend = () => refuse("rediscovery for a listener");
export const path = () => refuse("a path between two songs");
export const upload = () => refuse("searching with a file");
export const audioUrl = () => null;
export const waveform = () => refuse("the sound of a song");
export const explain = async () => ({ segment: null });

async function catalogue() {
  const { tracks } = await file("tracks");
  if (!kept.has("rows")) kept.set("rows", new Map(tracks.map((track, row) => [track.track_id, row])));
  return { tracks, rows: kept.get("rows") };
}

export async function track(track_id) {
  const { tracks, rows } = await catalogue();
  if (!rows.has(track_id)) throw new Refused("not_found", `There is no track ${track_id} in this copy.`);
  return tracks[rows.get(track_id)];
}

export async function tracks(text, k, offset) {
  const all = (await catalogue()).tracks;
  const wanted = text.toLowerCase();
  const matches = wanted
    ? all.filter((track) => [track.title, track.artist, track.album].some((field) => field?.toLowerCase().includes(wanted)))
    : all;
  return { tracks: matches.slice(offset, offset + k), n_total: matches.length };
}

export const similar = (track_id, k, blend) =>
  search({ terms: [{ track_id, weight: 1 }], k, offset: 0, blend, per_artist: null, where: [] });

/** Songs similar to one song; other questions need the service. */
export async function search(ask) {
  const about = await library();
  const [term] = ask.terms;
  if (ask.terms.some((term) => term.text)) return refuse("searching by words");
  if (ask.terms.length > 1) return refuse("asking with several songs");
  if (!term.track_id || term.start_s !== undefined || term.weight < 0) return refuse("this question");
  if (ask.where.length) return refuse("narrowing down");
  const { tracks, rows } = await catalogue();
  if (!rows.has(term.track_id)) throw new Refused("not_found", `There is no track ${term.track_id} in this copy.`);
  const row = rows.get(term.track_id);
  const near = (await file(`near-${Math.floor(row / about.tracks_a_file)}`))[String(row)];
  if (!near) throw new Refused("not_ready", "This song is not in the index, so nothing is known to be like it.");
  const blend = about.has_preference ? (ask.blend ?? about.blend) : 0;
  const results = counted(ranked(near, blend, tracks, term, tracks[row]), ask.per_artist);
  const shown = results
    .slice(ask.offset, ask.offset + ask.k)
    .map((result, at) => ({ ...result, rank: ask.offset + at + 1 }));
  return { results: shown, k: ask.k, offset: ask.offset, has_more: results.length > ask.offset + ask.k, blend };
}

function ranked(near, blend, tracks, term, seed) {
  const results = near.map(([row, semanticScore, preferenceScore]) => {
    const semantic = (1 - blend) * semanticScore;
    const preference = blend * preferenceScore;
    const part = {
      term: 0,
      track_id: seed.track_id,
      title: seed.title,
      text: null,
      weight: term.weight,
      semantic,
      preference,
    };
    const tags = (track) => [...track.genres, ...track.tags, ...track.machine_tags];
    const shared_tags = [...new Set(tags(seed).filter((tag) => tags(tracks[row]).includes(tag)))];
    return {
      ...tracks[row],
      score: semantic + preference,
      semantic,
      preference,
      why: { components: [part], shared_tags, n_listeners: null },
    };
  });
  results.sort((a, b) => b.score - a.score || (a.track_id < b.track_id ? -1 : 1));
  const seen = new Set(); // of a recording's copies, the best is kept
  return results.filter(({ recording }) => !seen.has(recording) && seen.add(recording)).slice(0, 30);
}

function counted(results, per_artist) {
  if (!per_artist) return results;
  const seen = new Map();
  return results.filter(({ lead }) => {
    seen.set(lead, (seen.get(lead) ?? 0) + 1);
    return !lead || seen.get(lead) <= per_artist;
  });
}

/** A playlist as a file. M3U8 needs the service, since an export has no audio. */
export async function exported(format, title, track_ids) {
  if (format === "m3u8") return refuse("a playlist for players");
  const { tracks, rows } = await catalogue();
  const { exportPlaylist } = await import("./playlist-export.js");
  return exportPlaylist(
    format,
    title,
    track_ids.filter((id) => rows.has(id)).map((id) => tracks[rows.get(id)]),
  );
}
