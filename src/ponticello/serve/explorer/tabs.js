// The views beside the list; on a narrow page the list is one of them.

import { byId } from "./dom.js";
import { change, state, watch } from "./state.js";

const wide = matchMedia("(min-width: 62rem)");

/** Stands over the list where that is one of the views, else over what is beside it; the order of the page stays that of reading. */
function place() {
  const [tabs, songs, beside] = [byId("tabs"), byId("songs"), byId("beside")];
  if (wide.matches) beside.prepend(tabs);
  else songs.before(tabs);
  render();
}

function render() {
  const shown = state.tab && !(wide.matches && state.tab === "songs") ? state.tab : wide.matches ? "maps" : "songs";
  document.body.dataset.tab = shown;
  for (const button of document.querySelectorAll(".tabs button")) button.setAttribute("aria-pressed", String(button.dataset.tab === shown));
  for (const name of ["maps", "playlist", "audience", "path", "rediscover"]) byId(`panel-${name}`).hidden = name !== shown;
}

/** Connects the tabs. */
export function startTabs() {
  for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => change({ tab: button.dataset.tab }));
  wide.addEventListener("change", place);
  watch((changed) => changed.has("tab") && render());
  place();
}
