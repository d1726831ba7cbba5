// The tabs of the views; on a narrow page the list is one of them.

import { byId, isWide, onWidth } from "./dom.js";
import { change, state, watch } from "./state.js";

/** Puts the tabs above the list if it is one of the views, else above the side panel; the page order stays the reading order. */
function place() {
  const [tabs, songs, sidePanel] = [byId("tabs"), byId("songs"), byId("side-panel")];
  if (isWide()) sidePanel.prepend(tabs);
  else songs.before(tabs);
  render();
}

/** Shows the list if it is one of the views, without a history entry. */
export function showSongs() {
  if (document.body.dataset.tab !== "songs" && !isWide()) change({ tab: "songs" }, false);
}

function render() {
  const first = isWide() ? "maps" : "songs";
  const shown = state.tab && !(isWide() && state.tab === "songs") ? state.tab : first;
  document.body.dataset.tab = shown;
  for (const button of document.querySelectorAll(".tabs button"))
    button.setAttribute("aria-pressed", String(button.dataset.tab === shown));
  for (const name of ["maps", "playlist", "audience", "path", "rediscover"])
    byId(`panel-${name}`).hidden = name !== shown;
}

/** Connects the tabs. */
export function startTabs() {
  for (const button of document.querySelectorAll(".tabs button"))
    button.addEventListener("click", () => change({ tab: button.dataset.tab }));
  onWidth(place);
  watch((changed) => changed.has("tab") && render());
  place();
}
