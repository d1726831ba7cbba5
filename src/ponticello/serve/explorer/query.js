// The question: words, songs by name, chips with + and -, dropped files and songs.

import { askAlso, askOnly, isKnown, remember, reweigh, termName } from "./actions.js";
import { byId, debounced, el, icon, nameOf } from "./dom.js";
import { about, drop, failed, notice } from "./notices.js";
import { isAborted } from "./service.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";
import { showSongs } from "./tabs.js";

const words = byId("words");

function askWords(how, weight = 1) {
  const text = words.value.trim();
  if (!text) return words.focus();
  words.value = "";
  suggest();
  showSongs();
  how({ kind: "text", text }, weight);
  byId("songs").focus({ preventScroll: true }); // j and k then move through the answer; / returns
  return undefined;
}

function chip(term, at) {
  const name = termName(term);
  const isAway = term.weight < 0;
  const turn = el("button", {
    type: "button",
    class: "turn",
    text: isAway ? "−" : "+",
    "aria-label": `${name}: ${isAway ? "away from it; turn to towards it" : "towards it; turn to away from it"}`,
    on: { click: () => reweigh(at, -term.weight) },
  });
  const remove = el(
    "button",
    { type: "button", class: "remove", "aria-label": `Remove ${name}`, on: { click: () => removeTerm(at) } },
    icon("close"),
  );
  return el("li", { class: `chip ${isAway ? "away" : "towards"}` }, turn, el("span", { text: name }), remove);
}

function removeTerm(at) {
  reweigh(at, null);
  const rest = byId("chips").querySelectorAll(".remove");
  (rest[Math.min(at, rest.length - 1)] ?? words).focus();
}

function renderChips() {
  const chips = state.terms.map(chip);
  if (state.listener) {
    const remove = el(
      "button",
      {
        type: "button",
        class: "remove",
        "aria-label": "Stop asking for this listener",
        on: { click: () => change({ listener: null }) },
      },
      icon("close"),
    );
    chips.push(
      el(
        "li",
        { class: "chip towards" },
        el("span", { text: `never played by ${state.listener}, close to what they like` }),
        remove,
      ),
    );
  }
  byId("chips").replaceChildren(...chips);
  byId("chips").hidden = !chips.length;
}

/** Loads the songs in the address that are not stored yet: after a reload, or by a link. */
async function learnNames() {
  const unknown = [...state.terms.map((term) => term.track_id), ...state.path, state.selected].filter(
    (id) => id && !isKnown(id),
  );
  if (!unknown.length) return;
  const results = await Promise.allSettled([...new Set(unknown)].map((id) => source.track(id)));
  const learned = results.filter((result) => result.status === "fulfilled");
  if (!learned.length) return;
  for (const one of learned) remember(one.value);
  renderChips();
  change({ selected: state.selected }, "names"); // updates the displayed names
}

let naming = null;
const suggest = debounced(async () => {
  const text = words.value.trim();
  const box = byId("named");
  naming?.abort();
  if (text.length < 2) return void (box.hidden = true);
  const request = (naming = new AbortController());
  try {
    const { tracks } = await source.tracks(text, 5, 0, [], request.signal);
    if (words.value.trim() !== text) return;
    tracks.forEach(remember);
    const buttons = tracks.map((track) =>
      el("button", {
        type: "button",
        class: "quiet",
        text: `${nameOf(track)}${track.artist ? `, ${track.artist}` : ""}`,
        on: { click: () => chooseNamed(track) },
      }),
    );
    box.replaceChildren(el("span", { class: "note", text: "Like the song" }), ...buttons);
    box.hidden = !buttons.length;
  } catch (error) {
    if (!isAborted(error)) box.hidden = true; // the search itself reports the error
  }
}, 220);

function chooseNamed(track) {
  words.value = "";
  byId("named").hidden = true;
  askOnly({ kind: "track", track_id: track.track_id });
  words.focus();
}

async function askFile(file) {
  const { upload_bytes: most } = about.limits;
  if (most && file.size > most) {
    return notice(
      "upload",
      `${file.name} is too large: ${Math.ceil(file.size / 2 ** 20)} MB, at most ${Math.floor(most / 2 ** 20)} MB.`,
      { kind: "bad" },
    );
  }
  notice("upload", `Listening to ${file.name}…`, { canClose: false });
  try {
    const { upload_id } = await source.upload(file);
    drop("upload");
    askOnly({ kind: "upload", upload: upload_id, name: file.name });
  } catch (error) {
    drop("upload");
    failed(error, () => askFile(file));
  }
  return undefined;
}

function startDropping() {
  const cover = byId("drop");
  const isWanted = (event) =>
    [...event.dataTransfer.types].some((type) => type === "Files" || type === "application/x-ponticello-track");
  let depth = 0;
  const leave = () => {
    depth = 0;
    cover.hidden = true;
    byId("ask").classList.remove("is-target");
  };
  document.addEventListener("dragenter", (event) => {
    if (!isWanted(event)) return;
    depth += 1;
    cover.hidden = !event.dataTransfer.types.includes("Files");
    byId("ask").classList.add("is-target");
  });
  document.addEventListener("dragleave", () => (depth -= 1) > 0 || leave());
  document.addEventListener("dragend", leave);
  document.addEventListener("dragover", (event) => isWanted(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!isWanted(event)) return;
    event.preventDefault();
    leave();
    if (event.dataTransfer.files.length) return void askFile(event.dataTransfer.files[0]);
    const track_id = event.dataTransfer.getData("application/x-ponticello-track");
    if (track_id && event.target.closest?.("#ask")) askAlso({ kind: "track", track_id }, 1);
  });
}

/** Shows which inputs this library or export does not support. */
export function limitQuestion() {
  const canFile = about.can_hear && !source.isFolder;
  byId("upload").disabled = !canFile;
  const note = byId("words-note");
  const why = source.isFolder
    ? "Searching by words needs the service; type a song's name to find its like."
    : "The model that understands words is missing or has changed: type a song's name to find its like.";
  note.textContent = why;
  note.hidden = about.can_search_text && !source.isFolder;
}

/** Connects the question. */
export function startQuery() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    askWords(askOnly);
  });
  byId("add-words").addEventListener("click", () => askWords(askAlso, 1));
  byId("without-words").addEventListener("click", () => askWords(askAlso, -1));
  byId("upload").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files.length) askFile(target.files[0]);
    target.value = "";
  });
  words.addEventListener("input", suggest);
  watch((changed) => {
    if (changed.has("terms") || changed.has("listener")) renderChips();
    learnNames();
  });
  startDropping();
  renderChips();
}
