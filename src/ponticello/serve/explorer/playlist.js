// The playlist: liked songs in order, stored in this browser and exported as a file.

import { recall, remember, select } from "./actions.js";
import { button, byId, byLine, clock, el, icon, nameOf } from "./dom.js";
import { about, failed } from "./notices.js";
import { toggle } from "./player.js";
import { source } from "./source.js";

const MOST = 1000; // the service's own limit
const FORMATS = { m3u8: "M3U8, for players", jspf: "JSPF, for ListenBrainz", csv: "CSV, for a table" };
const watchers = [];
let list = { title: "My playlist", tracks: [] };

/** Calls `run()` after every change of the list. */
export const onPlaylist = (run) => watchers.push(run);
export const isListed = (track_id) => list.tracks.some((track) => track.track_id === track_id);
const key = () => `ponticello-playlist:${about.name}`;

function changed() {
  try {
    localStorage.setItem(key(), JSON.stringify(list));
  } catch {
    // storage is blocked: the list lasts as long as the page
  }
  render();
  for (const run of watchers) run();
}

/** Appends songs that are not listed yet; returns how many. */
export function listAll(track_ids) {
  const fresh = [...new Set(track_ids)].filter((id) => !isListed(id)).slice(0, MOST - list.tracks.length);
  const kept = ({ track_id, title, artist, album, duration_s }) => ({ track_id, title, artist, album, duration_s });
  list.tracks.push(...fresh.map((id) => kept(recall(id))));
  changed();
  return fresh.length;
}

/** Adds a song to the list, or removes it. */
export function toggleListed(track_id) {
  if (!isListed(track_id)) return listAll([track_id]);
  list.tracks = list.tracks.filter((track) => track.track_id !== track_id);
  return changed();
}

function move(at, by) {
  const to = at + by;
  if (to < 0 || to >= list.tracks.length) return;
  [list.tracks[at], list.tracks[to]] = [list.tracks[to], list.tracks[at]];
  changed();
  byId("playlist-songs")
    .children[to].querySelector(by < 0 ? ".up" : ".down")
    .focus();
}

function remove(at) {
  toggleListed(list.tracks[at].track_id);
  const rest = byId("playlist-songs").children;
  (rest[Math.min(at, rest.length - 1)]?.querySelector(".remove") ?? byId("playlist-name")).focus();
}

async function save(format) {
  try {
    const blob = await source.exported(
      format,
      list.title,
      list.tracks.map((track) => track.track_id),
    );
    const url = URL.createObjectURL(blob);
    const name =
      list.title
        .replace(/[^\p{L}\p{N} _-]+/gu, "")
        .trim()
        .slice(0, 80) || "playlist";
    el("a", { href: url, download: `${name}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    failed(error, () => save(format));
  }
}

function song(track, at) {
  const name = nameOf(track);
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        class: "round small",
        "aria-label": `Play ${name}`,
        disabled: source.isFolder,
        on: { click: () => toggle(track.track_id) },
      },
      icon("play"),
    ),
    el(
      "button",
      { type: "button", class: "choose", on: { click: () => select(track.track_id) } },
      el("span", { class: "title", text: name }),
      el("span", { class: "artist", text: byLine(track) }),
    ),
    button("↑", () => move(at, -1), { class: "quiet up", "aria-label": `${name}: up`, disabled: at === 0 }),
    button("↓", () => move(at, 1), {
      class: "quiet down",
      "aria-label": `${name}: down`,
      disabled: at === list.tracks.length - 1,
    }),
    el(
      "button",
      {
        type: "button",
        class: "quiet remove",
        "aria-label": `${name}: out of the playlist`,
        on: { click: () => remove(at) },
      },
      icon("close"),
    ),
  );
}

function render() {
  const n = list.tracks.length;
  byId("playlist-count").textContent = n ? String(n) : "";
  const songs = byId("playlist-songs");
  songs.replaceChildren(...list.tracks.map(song));
  byId("playlist-empty").hidden = n > 0;
  byId("playlist-tools").hidden = n === 0;
  const total_s = list.tracks.reduce((sum, track) => sum + (track.duration_s ?? 0), 0);
  byId("playlist-total").textContent = [n ? `${n} ${n === 1 ? "song" : "songs"}` : "", total_s ? clock(total_s) : ""]
    .filter(Boolean)
    .join(", ");
}

/** Builds the panel, with the list stored in this browser for this library. */
export function startPlaylist() {
  const name = el("input", {
    id: "playlist-name",
    maxlength: "200",
    on: { change: ({ target }) => ((list.title = target.value.trim() || "My playlist"), changed()) },
  });
  byId("panel-playlist").replaceChildren(
    el("h2", { id: "playlist-title", text: "Playlist" }),
    el(
      "div",
      { class: "row" },
      el("label", { for: "playlist-name", text: "Name" }),
      name,
      el("span", { id: "playlist-total", class: "note", role: "status" }),
    ),
    el(
      "div",
      { id: "playlist-empty", class: "empty" },
      el("h3", { text: "No songs yet" }),
      el("p", { text: "The heart beside a song puts it here, or the key l; a lasso on the maps takes many at once." }),
    ),
    el("ol", { id: "playlist-songs", class: "plain", "aria-label": "Songs of the playlist" }),
    el(
      "div",
      { id: "playlist-tools", class: "doings", role: "group", "aria-label": "Save the playlist" },
      ...Object.entries(FORMATS).map(([format, text]) =>
        button(text, () => save(format), { dataset: { format }, disabled: source.isFolder && format === "m3u8" }),
      ),
      button("Empty it", () => ((list.tracks = []), changed(), name.focus())),
    ),
  );
  try {
    const kept = JSON.parse(localStorage.getItem(key()) ?? "null");
    if (Array.isArray(kept?.tracks))
      list = { title: String(kept.title), tracks: kept.tracks.filter((track) => typeof track?.track_id === "string") };
  } catch {
    // the list of another version is ignored
  }
  list.tracks.forEach(remember);
  name.value = list.title;
  render();
  for (const run of watchers) run();
}
