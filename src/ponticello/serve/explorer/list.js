// The ranked list: one row per song; rows are kept and moved when the blend changes their order.

import { askAlso, askSimilar, recall, remember, select, show } from "./actions.js";
import { answer, ask, onAnswer } from "./answer.js";
import { fillBar, newBar, reachOf, sum } from "./bars.js";
import { button, byId, byLine, clock, countOf, el, icon, isStill, nameOf } from "./dom.js";
import { showEmptyState } from "./empty-state.js";
import { nowPlaying, onPlayer, toggle } from "./player.js";
import { isListed, onPlaylist, toggleListed } from "./playlist.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";
import { showExplanation } from "./explanation.js";

const rows = new Map(); // track id -> {item, result, parts of the row}
const SLIDE_MS = 260;

/** A song that can be dragged onto the question or onto an end of a path. */
export function makeDraggable(node, track_id) {
  node.draggable = true;
  node.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("application/x-ponticello-track", track_id);
    event.dataTransfer.setData("text/plain", nameOf(recall(track_id)));
    event.dataTransfer.effectAllowed = "copy";
  });
}

function newRow(track_id) {
  const own = { bar: newBar(), rank: el("span", { class: "rank" }), title: el("span", { class: "title" }) };
  own.artist = el("span", { class: "artist" });
  own.sum = el("span", { class: "sum" });
  own.play = el(
    "button",
    { type: "button", class: "round small play", on: { click: () => toggle(track_id) } },
    icon("play"),
  );
  own.choose = el(
    "button",
    { type: "button", class: "choose", "aria-expanded": "false", on: { click: () => choose(track_id) } },
    own.title,
    own.artist,
  );
  own.like = el(
    "button",
    { type: "button", class: "like", on: { click: () => toggleListed(track_id) } },
    icon("heart"),
  );
  own.score = el("span", { class: "score" }, own.bar, own.sum);
  own.more = el("div", { class: "more-about", hidden: true });
  own.item = el(
    "li",
    { class: "song", dataset: { id: track_id } },
    own.rank,
    own.play,
    own.choose,
    own.score,
    own.like,
    own.more,
  );
  makeDraggable(own.item, track_id);
  return own;
}

function choose(track_id) {
  select(state.selected === track_id ? null : track_id);
}

function fill(own, result, reach) {
  own.result = result;
  const name = nameOf(result);
  own.rank.textContent = result.rank ?? "";
  own.title.textContent = name;
  own.artist.textContent = [byLine(result), clock(result.duration_s ?? NaN)].filter(Boolean).join(" · ");
  own.score.hidden = result.score === undefined;
  if (result.score !== undefined) {
    fillBar(own.bar, result, reach);
    own.sum.textContent = sum(result);
    const { semantic, preference } = result;
    own.sum.setAttribute(
      "aria-label",
      `score ${sum(result)}: meaning ${semantic.toFixed(2)}, taste ${preference.toFixed(2)}`,
    );
    own.sum.setAttribute("role", "img");
  }
  own.play.disabled = source.isFolder || !result.has_audio;
  own.play.title = source.isFolder ? "Sound needs the service" : result.has_audio ? "" : "No audio file";
  markPlaying(own);
  markListed(own);
}

function markPlaying(own) {
  const { track_id, isPlaying } = nowPlaying();
  const isThis = track_id === own.item.dataset.id;
  own.item.classList.toggle("is-playing", isThis);
  own.play.replaceChildren(icon(isThis && isPlaying ? "pause" : "play"));
  own.play.setAttribute("aria-label", `${isThis && isPlaying ? "Pause" : "Play"} ${nameOf(own.result)}`);
}

function markListed(own) {
  const listed = isListed(own.item.dataset.id);
  own.like.setAttribute("aria-pressed", String(listed));
  own.like.setAttribute("aria-label", `${nameOf(own.result)}: in the playlist`);
  own.like.title = listed ? "Take out of the playlist (l)" : "Into the playlist (l)";
}

function markSelected() {
  for (const [track_id, own] of rows) {
    const isIt = track_id === state.selected;
    if (own.item.classList.contains("is-selected") === isIt && !isIt) continue;
    own.item.classList.toggle("is-selected", isIt);
    own.choose.setAttribute("aria-expanded", String(isIt));
    own.more.hidden = !isIt;
    if (isIt) fillMore(own);
    else own.more.replaceChildren();
  }
}

function fillMore(own) {
  const { track_id } = own.result;
  const term = { kind: "track", track_id };
  const path = (at) => change({ path: at ? [state.path[0], track_id] : [track_id, state.path[1]], tab: "path" });
  own.more.replaceChildren(
    el(
      "div",
      { class: "doings", role: "group", "aria-label": `With ${nameOf(own.result)}` },
      button("Similar", () => askSimilar(track_id), { "aria-keyshortcuts": "s" }),
      button("+ more like it", () => askAlso(term, 1)),
      button("− less like it", () => askAlso(term, -1)),
      button("Audience", () => show("audience"), { "aria-keyshortcuts": "a" }),
      button("Path from here", () => path(0)),
      button("Path to here", () => path(1)),
    ),
    el("div", { class: "explanation" }),
  );
  showExplanation(own.more.lastChild, own.result);
}

/** Where every row stands, to slide it from there to its new place. */
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
    const own = rows.get(result.track_id);
    fill(own, result, reach);
    if (own.item === place) place = place.nextElementSibling;
    else list.insertBefore(own.item, place);
  }
  slide(before);
  markSelected();
  describe();
  if (held && !wanted.has(held)) byId("songs").focus({ preventScroll: true }); // the row with the focus is gone
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

/** Moves the focus `by` rows down (or up), choosing the first where none has it; returns that row's track id. */
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

/** The song whose row holds the focus. */
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
