// Single-key shortcuts, their list, and a switch that turns them off.

import { askSimilar, select } from "./actions.js";
import { answer } from "./answer.js";
import { byId } from "./dom.js";
import { focusRow, rowInFocus, step } from "./list.js";
import { toggle, toggleAny, nowPlaying } from "./player.js";
import { toggleListed } from "./playlist.js";
import { change, state } from "./state.js";
import { showSongs } from "./tabs.js";

const SWITCH = "ponticello-keys";
const help = byId("help");

/** The song a key acts on: the focused row, else the selected one, else the playing one. */
const meant = () => rowInFocus() ?? state.selected ?? nowPlaying().track_id;

const withMeant = (run) => () => {
  const track_id = meant();
  if (track_id) run(track_id);
};

function go(by) {
  const isLast = state.selected !== null && state.selected === answer.results.at(-1)?.track_id;
  if (by > 0 && isLast && answer.has_more) return byId("more").click(); // continues with the first new row
  const track_id = step(by);
  if (track_id && track_id !== state.selected) {
    showSongs();
    select(track_id);
    focusRow(track_id);
  }
  return undefined;
}

const KEYS = {
  "/": () => (byId("words").focus(), byId("words").select()),
  j: () => go(1),
  k: () => go(-1),
  l: withMeant(toggleListed),
  s: withMeant(askSimilar),
  a: withMeant((track_id) => change({ selected: track_id, tab: "audience" })),
  "?": () => help.showModal(),
};

/** Whether the element is a text field, or needs the key itself. */
const takesText = (node) =>
  node.matches?.("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]");
const takesSpace = (node) =>
  node.matches?.("button, summary, a, input, [role=slider], [role=application]") && !node.closest("li.song .choose");

function isOn() {
  try {
    return localStorage.getItem(SWITCH) !== "off";
  } catch {
    return true;
  }
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || help.open || !isOn()) return;
  const { target, key } = event;
  if (takesText(target)) {
    if (key === "Escape") target.blur();
    return;
  }
  if (key === " " && !takesSpace(target)) {
    event.preventDefault();
    const row = rowInFocus();
    if (row) toggle(row);
    else toggleAny(state.selected ?? answer.results.find((track) => track.has_audio)?.track_id);
  } else if (KEYS[key]) {
    event.preventDefault();
    KEYS[key]();
  }
}

/** Connects the keys. */
export function startKeys() {
  document.addEventListener("keydown", pressed);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the link would replace the question in the address by #songs
    showSongs();
    byId("songs").focus();
  });
  byId("help-open").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  byId("keys-on").checked = isOn();
  byId("keys-on").addEventListener("change", ({ target }) => {
    try {
      localStorage.setItem(SWITCH, target.checked ? "on" : "off");
    } catch {
      // storage is blocked: the choice lasts as long as the page
    }
  });
}
