// A path between two songs: small steps from one to the other at the current blend.

import { recall, remember, select } from "./actions.js";
import { button, byId, byLine, debounced, el, icon, nameOf } from "./dom.js";
import { toggle } from "./player.js";
import { listAll } from "./playlist.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";

let current = "";

function end(at, name) {
  const track_id = state.path[at];
  const node = el(
    "div",
    { class: "pathend", dataset: { at: String(at) } },
    el("span", { class: "note", text: name }),
    el("strong", { text: track_id ? nameOf(recall(track_id)) : "drop a song here" }),
    button("Use the chosen song", () => setEnd(at, state.selected), { disabled: !state.selected }),
  );
  node.addEventListener("dragover", (event) => event.preventDefault());
  node.addEventListener("drop", (event) => {
    const dropped = event.dataTransfer.getData("application/x-ponticello-track");
    if (dropped) setEnd(at, dropped);
  });
  return node;
}

const setEnd = (at, track_id) => change({ path: at ? [state.path[0], track_id] : [track_id, state.path[1]] });

function renderEnds() {
  byId("path-ends").replaceChildren(end(0, "From"), end(1, "To"));
}

function stepRow(track) {
  remember(track);
  const share = Math.round((track.similarity ?? 0) * 100);
  const near =
    track.similarity === null || track.similarity === undefined
      ? null
      : el(
          "span",
          { class: "near" },
          el("span", { class: "nearness" }, el("span")),
          el("span", { class: "note", text: `${share} % near the next` }),
        );
  near?.firstChild.firstChild.style.setProperty("width", `${share}%`);
  return el(
    "li",
    {},
    el(
      "button",
      {
        type: "button",
        class: "round small",
        "aria-label": `Play ${nameOf(track)}`,
        disabled: !track.has_audio,
        on: { click: () => toggle(track.track_id) },
      },
      icon("play"),
    ),
    el(
      "button",
      { type: "button", class: "choose", on: { click: () => select(track.track_id) } },
      el("span", { class: "title", text: nameOf(track) }),
      el("span", { class: "artist", text: byLine(track) }),
    ),
    near,
  );
}

async function render() {
  if (state.tab !== "path") return;
  renderEnds();
  const [from, to] = state.path;
  const body = byId("path-body");
  const say = (title, text) =>
    body.replaceChildren(el("div", { class: "empty" }, el("h3", { text: title }), el("p", { text })));
  if (!from || !to)
    return void say(
      "Two songs make a path",
      "Open a song of the list and press “Path from here”, then another and “Path to here”; or drag them onto the two ends.",
    );
  if (from === to) return void say("Both ends are the same song", "Choose another for one of them.");
  const request = (current = `${from} ${to} ${state.blend} ${byId("path-steps").value}`);
  try {
    const { tracks } = await source.path(from, to, Number(byId("path-steps").value), state.blend);
    if (request !== current) return;
    const track_ids = tracks.map((track) => track.track_id);
    body.replaceChildren(
      el("ol", { class: "plain steps", "aria-label": "The path" }, ...tracks.map(stepRow)),
      el(
        "div",
        { class: "doings" },
        button("All into the playlist", () => listAll(track_ids)),
      ),
    );
    renderEnds();
  } catch (error) {
    if (request === current) say("No path", error.message);
  }
}

/** Builds the panel. */
export function startPath() {
  const soon = debounced(render, 100);
  const steps = el(
    "select",
    { id: "path-steps", on: { change: soon } },
    ...[4, 6, 8, 12, 16].map((n) => el("option", { value: String(n), text: String(n), selected: n === 8 })),
  );
  byId("panel-path").replaceChildren(
    el("h2", { id: "path-title", text: "A path between two songs" }),
    el("div", { id: "path-ends", class: "pathends" }),
    el("div", { class: "row" }, el("label", { for: "path-steps", text: "Songs" }), steps),
    el("div", { id: "path-body" }),
  );
  watch((changed) => {
    if (["path", "tab", "blend", "selected"].some((name) => changed.has(name)))
      (changed.size === 1 && changed.has("selected") ? renderEnds : soon)();
  });
}
