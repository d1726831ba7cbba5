// The ranked list: one row per song; rows are kept and moved when the blend changes their order.

import { askAlso, askSimilar, recall, remember, select, show } from "./actions.js";
import { answer, ask, onAnswer } from "./answer.js";
import { fillBar, hundredths, newBar, reachOf, signed, sum } from "./bars.js";
import { button, byId, byLine, clock, countOf, el, icon, isStill, nameOf } from "./dom.js";
import { showEmptyState } from "./empty-state.js";
import { nowPlaying, onPlayer, toggle } from "./player.js";
import { isListed, onPlaylist, toggleListed } from "./playlist.js";
import { about } from "./notices.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";
import { showExplanation } from "./explanation.js";

const rows = new Map(); // track id -> {item, result, parts of the row}
const SLIDE_MS = 260;

/** Makes a song draggable onto the question or an end of a path. */
export function makeDraggable(node, track_id) {
  node.draggable = true;
  node.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("application/x-ponticello-track", track_id);
    event.dataTransfer.setData("text/plain", nameOf(recall(track_id)));
    event.dataTransfer.effectAllowed = "copy";
  });
}

function newRow(track_id) {
  const row = { bar: newBar(), rank: el("span", { class: "rank" }), title: el("span", { class: "title" }) };
  row.artist = el("span", { class: "artist" });
  row.sum = el("span", { class: "sum" });
  row.play = el(
    "button",
    { type: "button", class: "round small play", on: { click: () => toggle(track_id) } },
    icon("play"),
  );
  row.choose = el(
    "button",
    { type: "button", class: "choose", "aria-expanded": "false", on: { click: () => choose(track_id) } },
    row.title,
    row.artist,
  );
  row.like = el(
    "button",
    { type: "button", class: "like", on: { click: () => toggleListed(track_id) } },
    icon("heart"),
  );
  row.score = el("span", { class: "score" }, row.bar, row.sum);
  row.more = el("div", { class: "more-about", hidden: true });
  row.item = el(
    "li",
    { class: "song", dataset: { id: track_id } },
    row.rank,
    row.play,
    row.choose,
    row.score,
    row.like,
    row.more,
  );
  makeDraggable(row.item, track_id);
  return row;
}

function choose(track_id) {
  select(state.selected === track_id ? null : track_id);
}

function fill(row, result, reach) {
  row.result = result;
  const name = nameOf(result);
  row.rank.textContent = result.rank ?? "";
  row.title.textContent = name;
  row.artist.textContent = [byLine(result), clock(result.duration_s ?? NaN)].filter(Boolean).join(" · ");
  row.score.hidden = result.score === undefined;
  if (result.score !== undefined) {
    fillBar(row.bar, result, reach);
    row.sum.textContent = sum(result);
    const [meaning, taste] = hundredths([result.semantic, result.preference], result.score);
    const parts = about.has_preference ? `: meaning ${signed(meaning)}, taste ${signed(taste)}` : "";
    row.sum.setAttribute("aria-label", `score ${sum(result)}${parts}`);
    row.sum.setAttribute("role", "img");
  }
  row.play.disabled = source.isFolder || !result.has_audio;
  row.play.title = source.isFolder ? "Sound needs the service" : result.has_audio ? "" : "No audio file";
  markPlaying(row);
  markListed(row);
}

function markPlaying(row) {
  const { track_id, isPlaying } = nowPlaying();
  const isThis = track_id === row.item.dataset.id;
  row.item.classList.toggle("is-playing", isThis);
  row.play.replaceChildren(icon(isThis && isPlaying ? "pause" : "play"));
  row.play.setAttribute("aria-label", `${isThis && isPlaying ? "Pause" : "Play"} ${nameOf(row.result)}`);
}

function markListed(row) {
  const listed = isListed(row.item.dataset.id);
  row.like.setAttribute("aria-pressed", String(listed));
  row.like.setAttribute("aria-label", `${nameOf(row.result)}: in the playlist`);
  row.like.title = listed ? "Take out of the playlist (l)" : "Into the playlist (l)";
}

function markSelected() {
  for (const [track_id, row] of rows) {
    const isIt = track_id === state.selected;
    if (row.item.classList.contains("is-selected") === isIt && !isIt) continue;
    row.item.classList.toggle("is-selected", isIt);
    row.choose.setAttribute("aria-expanded", String(isIt));
    row.more.hidden = !isIt;
    if (isIt) fillMore(row);
    else row.more.replaceChildren();
  }
}

function fillMore(row) {
  const { track_id } = row.result;
  const term = { kind: "track", track_id };
  const path = (at) => change({ path: at ? [state.path[0], track_id] : [track_id, state.path[1]], tab: "path" });
  row.more.replaceChildren(
    el(
      "div",
      { class: "doings", role: "group", "aria-label": `With ${nameOf(row.result)}` },
      button("Similar", () => askSimilar(track_id), { "aria-keyshortcuts": "s" }),
      button("+ more like it", () => askAlso(term, 1)),
      button("− less like it", () => askAlso(term, -1)),
      button("Audience", () => show("audience"), { "aria-keyshortcuts": "a" }),
      button("Path from here", () => path(0)),
      button("Path to here", () => path(1)),
    ),
    el("div", { class: "explanation" }),
  );
  showExplanation(row.more.lastChild, row.result);
}

/** The position of every row, from which it slides to its new one. */
const placesNow = () => new Map([...rows].map(([id, { item }]) => [id, item.getBoundingClientRect().top]));

function slide(before) {
  if (isStill()) return;
  for (const [track_id, { item }] of rows) {
    if (!before.has(track_id)) {
      item.animate([{ opacity: 0 }, { opacity: 1 }], { duration: SLIDE_MS });
      continue;
    }
    const moved = before.get(track_id) - item.getBoundingClientRect().top;
    if (moved)
      item.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], {
        duration: SLIDE_MS,
        easing: "ease-out",
      });
  }
}

function render() {
  const list = byId("list");
  const before = placesNow();
  const reach = reachOf(answer.results.filter((result) => result.score !== undefined));
  const held = rowInFocus();
  const wanted = new Set(answer.results.map((result) => result.track_id));
  for (const [track_id, { item }] of rows) if (!wanted.has(track_id)) (item.remove(), rows.delete(track_id));
  let place = list.firstElementChild;
  for (const result of answer.results) {
    remember(result);
    if (!rows.has(result.track_id)) rows.set(result.track_id, newRow(result.track_id));
    const row = rows.get(result.track_id);
    fill(row, result, reach);
    if (row.item === place) place = place.nextElementSibling;
    else list.insertBefore(row.item, place);
  }
  slide(before);
  markSelected();
  describe();
  if (held && !wanted.has(held)) byId("songs").focus({ preventScroll: true }); // the focused row is gone
}

function describe() {
  byId("songs-title").textContent = { all: "All songs", asked: "Songs", listener: `For listener ${state.listener}` }[
    answer.mode
  ];
  const n = answer.results.length;
  const first = n ? `, closest: ${nameOf(answer.results[0])}` : "";
  const counted =
    answer.n_total !== null
      ? `${n} of ${answer.n_total.toLocaleString("en")}`
      : `${countOf(n, "song")}${answer.has_more ? ", there are more" : ""}${first}`;
  byId("songs-status").textContent = answer.is_loading && !n ? "Looking…" : n ? counted : "";
  byId("list").setAttribute("aria-busy", String(answer.is_loading));
  byId("legend").hidden = !n || answer.mode === "all";
  byId("more").hidden = !answer.has_more;
  showEmptyState(byId("songs-empty"));
}

/** Moves the focus `by` rows down (or up), or to the first row; returns that row's track id. */
export function step(by) {
  const order = answer.results.map((result) => result.track_id);
  if (!order.length) return null;
  const at = order.indexOf(rowInFocus() ?? state.selected);
  const next = order[Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  focusRow(next);
  return next;
}

/** Puts the focus on a song of the list. */
export const focusRow = (track_id) => rows.get(track_id)?.choose.focus();

/** The song of the focused row. */
export const rowInFocus = () => document.activeElement?.closest?.("li.song")?.dataset.id ?? null;

/** Connects the list. */
export function startList() {
  onAnswer(() => (answer.is_loading ? describe() : render()));
  onPlayer(() => rows.forEach(markPlaying));
  onPlaylist(() => rows.forEach(markListed));
  watch((changed) => changed.has("selected") && markSelected());
  byId("more").addEventListener("click", async () => {
    const n = answer.results.length;
    await ask(true);
    if (!answer.results[n]) return;
    select(answer.results[n].track_id);
    focusRow(answer.results[n].track_id);
  });
}
