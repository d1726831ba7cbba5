// The selected song under the maps and its actions; it need not be on the list.

import { askAlso, askSimilar, isKnown, recall, show } from "./actions.js";
import { button, byId } from "./dom.js";
import { toggle } from "./player.js";
import { isListed, onPlaylist, toggleListed } from "./playlist.js";
import { source } from "./source.js";
import { state, watch } from "./state.js";

function render() {
  const box = byId("details");
  const track_id = state.selected;
  if (!track_id || !isKnown(track_id)) return void box.replaceChildren(); // its place stays, so that the maps do not jump
  const track = recall(track_id);
  const term = { kind: "track", track_id };
  box.replaceChildren(
    button("Play", () => toggle(track_id), { disabled: source.isFolder || track.has_audio === false }),
    button("Similar", () => askSimilar(track_id)),
    button("+ more like it", () => askAlso(term, 1)),
    button("− less like it", () => askAlso(term, -1)),
    button("Audience", () => show("audience")),
    button(isListed(track_id) ? "Out of the playlist" : "Into the playlist", () => toggleListed(track_id)),
  );
  return undefined;
}

/** Connects the row of buttons. */
export function startDetails() {
  onPlaylist(render);
  watch((changed) => changed.has("selected") && render());
  render();
}
