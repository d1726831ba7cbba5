// The maps as a table of the songs in view, for screen readers and for reading.

import { byId, countOf, el, nameOf } from "./dom.js";
import { mapName, maps, trackOf } from "./map-state.js";

const MOST = 40;
let choose = () => {};

/** The region of a map that a song is in, such as "top left". */
function region(cloud, row) {
  const third = (value, names) => names[Math.min(2, Math.floor(value * 3))];
  const [across, down] = [
    third(cloud.xs[row], ["left", "middle", "right"]),
    third(cloud.ys[row], ["top", "middle", "bottom"]),
  ];
  return across === down ? "middle" : `${down} ${across}`;
}

const movedBy = (first, other, row) => Math.hypot(first.xs[row] - other.xs[row], first.ys[row] - other.ys[row]);

/** The rows to show: the selected first, the list's, then the nearest to the middle of the active map. */
function rowsToShow() {
  const pane = maps.panes[maps.active];
  const half = [pane.width / 2 / pane.scale, pane.height / 2 / pane.scale];
  const seen = [];
  pane.cloud.around(pane.x - half[0], pane.y - half[1], pane.x + half[0], pane.y + half[1], (row) => {
    if (pane.isShown(row)) seen.push(row);
  });
  const away = (row) => Math.hypot(pane.cloud.xs[row] - pane.x, pane.cloud.ys[row] - pane.y);
  const order = (row) =>
    row === maps.selected ? -2 : maps.ranks.has(row) ? -1 + maps.ranks.get(row) / 1e6 : away(row);
  const keyed = seen.map((row) => [order(row), row]).sort((a, b) => a[0] - b[0]);
  return { n: seen.length, rows: keyed.slice(0, MOST).map(([, row]) => row), pane };
}

function line(row) {
  const track = trackOf(row);
  const [first, other] = maps.panes;
  const texts = [track.artist ?? "", String(maps.ranks.get(row) ?? ""), region(first.cloud, row)];
  if (other) texts.push(region(other.cloud, row), `${Math.round(movedBy(first.cloud, other.cloud, row) * 100)} %`);
  const cells = texts.map((text) => el("td", { text }));
  const name = el("button", {
    type: "button",
    class: "choose",
    text: nameOf(track),
    "aria-pressed": String(row === maps.selected),
    on: { click: () => choose(row) },
  });
  return el(
    "tr",
    { class: row === maps.selected ? "is-selected" : null, dataset: { row: String(row) } },
    el("th", { scope: "row" }, name),
    ...cells,
  );
}

/** Writes the table, if it is open. */
export function fillTable() {
  if (!byId("maptable").open || !maps.panes.length) return;
  const { n, rows, pane } = rowsToShow();
  const focused = document.activeElement?.closest?.("#maptable-body tr")?.dataset.row;
  byId("maptable-caption").textContent =
    `${countOf(n, "song")} in view on ${mapName(pane)}; ${rows.length < n ? `the ${rows.length} that matter most here` : "all of them"}`;
  const body = byId("maptable-body");
  body.replaceChildren(...rows.map((row) => line(row)));
  if (focused) body.querySelector(`tr[data-row="${focused}"] button`)?.focus();
}

/** Connects the table. */
export function startTable(onChoose) {
  choose = onChoose;
  byId("maptable").addEventListener("toggle", () => fillTable());
}
