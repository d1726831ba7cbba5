// The blend slider, the filters on columns, and the limit of songs per artist.

import { byId, el, icon } from "./dom.js";
import { about } from "./notices.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";

const slider = byId("blend");
const OPERATORS = {
  text: [
    ["=", "is"],
    ["~", "contains"],
    ["!=", "is not"],
  ],
  texts: [
    ["=", "has"],
    ["~", "has one with"],
    ["!=", "has not"],
  ],
  number: [
    ["<", "below"],
    [">", "above"],
    ["=", "equals"],
  ],
  time: [
    ["<", "before"],
    [">", "after"],
  ],
};
const MOST_FILTERS = 16;

const blendNow = () => state.blend ?? about.blend ?? 0;

function renderBlend() {
  const blend = about.has_preference ? blendNow() : 0;
  if (document.activeElement !== slider || Number(slider.value) !== blend) slider.value = String(blend);
  const percent = Math.round(blend * 100);
  byId("blend-value").textContent = `${100 - percent} : ${percent}`;
  slider.setAttribute("aria-valuetext", `${100 - percent} percent meaning, ${percent} percent taste`);
  document.body.classList.toggle("one-space", !about.has_preference);
  byId("blend-note").hidden = !about.one_space;
  byId("blend-note").textContent = `${about.one_space.charAt(0).toUpperCase()}${about.one_space.slice(1)}.`;
}

function renderFilters() {
  const chips = state.where.map((filter, at) => {
    const remove = el(
      "button",
      {
        type: "button",
        class: "remove",
        "aria-label": `Remove the filter ${filter}`,
        on: { click: () => change({ where: state.where.filter((_, place) => place !== at) }) },
      },
      icon("close"),
    );
    return el("li", { class: "chip" }, el("span", { text: filter }), remove);
  });
  byId("filters").replaceChildren(...chips);
  byId("filters").hidden = !chips.length;
  byId("per-artist").value = state.per_artist ? String(state.per_artist) : "";
  const n = state.where.length + (state.per_artist ? 1 : 0);
  byId("filter-count").textContent = n ? `(${n})` : "";
}

const columnNow = () => about.columns.find((column) => column.name === byId("filter-column").value);

function renderColumn() {
  const column = columnNow();
  const operators = OPERATORS[column?.kind] ?? [];
  byId("filter-operator").replaceChildren(...operators.map(([value, text]) => el("option", { value, text })));
  const values = about.filter_values[column?.name] ?? [];
  byId("filter-values").replaceChildren(...values.map((value) => el("option", { value })));
  byId("filter-value").type = column?.kind === "time" ? "date" : "text";
  byId("filter-value").inputMode = column?.kind === "number" ? "decimal" : "text";
}

/** Fills in the columns and values of the library. */
export function fillFilters() {
  byId("filter-column").replaceChildren(
    ...about.columns.map(({ name }) => el("option", { value: name, text: name.replaceAll("_", " ") })),
  );
  byId("filter").hidden = !about.columns.length || source.isFolder;
  const genres = about.columns.find(({ name }) => name === "genres");
  if (genres) byId("filter-column").value = "genres";
  renderColumn();
  renderBlend();
  renderFilters();
}

/** Connects the slider and the filters. */
export function startFilters() {
  slider.addEventListener("input", () => change({ blend: Number(slider.value) }, false));
  byId("per-artist").addEventListener("change", ({ target }) =>
    change({ per_artist: target.value ? Number(target.value) : null }),
  );
  byId("filter-column").addEventListener("change", renderColumn);
  byId("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = byId("filter-value").value.trim();
    if (!value || !columnNow()) return byId("filter-value").focus();
    const filter = `${columnNow().name}${byId("filter-operator").value}${value}`;
    change({ where: [...state.where.filter((one) => one !== filter), filter].slice(-MOST_FILTERS) });
    byId("filter-value").value = "";
    return undefined;
  });
  watch((changed) => {
    if (state.blend !== null && !about.has_preference) change({ blend: null }, false); // of a link
    if (changed.has("blend")) renderBlend();
    if (changed.has("where") || changed.has("per_artist")) renderFilters();
  });
}
