// The state of the page, stored in the address: links share it, back and forward move through it.

const START = {
  terms: [], // {kind: text|track|part|upload, weight, text, track_id, start_s, end_s, upload, name}
  listener: null,
  blend: null, // null: the library's default
  per_artist: null,
  where: [],
  tab: null, // null: songs where the page is narrow, maps where it is wide
  selected: null,
  path: [null, null],
};

export const state = structuredClone(START);
const watchers = [];

/** Calls `run(changed names)` after every change. */
export const watch = (run) => watchers.push(run);

const REWRITE_MS = 200; // browsers limit how often a page may rewrite its address
let rewriting = 0;

function rewrite() {
  clearTimeout(rewriting);
  rewriting = 0;
  history.replaceState(null, "", `#${write(state)}`);
}

/** Changes the state. step: adds a history entry, so that "back" undoes it; else rewrites the entry. */
export function change(values, step = true) {
  if (rewriting && step !== false) rewrite();
  const before = write(state);
  Object.assign(state, values);
  if (step === true && write(state) !== before) history.pushState(null, "", `#${write(state)}`);
  if (step === false && !rewriting) rewriting = setTimeout(rewrite, REWRITE_MS);
  const changed = new Set(Object.keys(values));
  for (const run of watchers) run(changed);
}

/** Reads the state from the address: at the start, and on back and forward. */
export function load() {
  clearTimeout(rewriting);
  rewriting = 0;
  const loaded = read(location.hash.slice(1));
  const changed = Object.keys(loaded).filter((name) => JSON.stringify(loaded[name]) !== JSON.stringify(state[name]));
  change(Object.fromEntries(changed.map((name) => [name, loaded[name]])), "load");
}

/** A term in the form the service accepts. */
export function asTerm(term) {
  const sent = { weight: term.weight };
  if (term.kind === "text") return { ...sent, text: term.text };
  if (term.kind === "upload") return { ...sent, upload_id: term.upload };
  const track = { ...sent, track_id: term.track_id };
  return term.kind === "part" ? { ...track, start_s: term.start_s, end_s: term.end_s } : track;
}

/** The state as text of an address, without default values. */
export function write(from) {
  const parts = new URLSearchParams();
  for (const term of from.terms) parts.append("ask", [term.weight, term.kind, ...fields(term)].join("~"));
  if (from.listener) parts.append("for", from.listener);
  if (from.blend !== null) parts.append("blend", String(from.blend));
  if (from.per_artist) parts.append("per_artist", String(from.per_artist));
  for (const filter of from.where) parts.append("where", filter);
  if (from.tab) parts.append("view", from.tab);
  if (from.selected) parts.append("song", from.selected);
  if (from.path[0]) parts.append("from", from.path[0]);
  if (from.path[1]) parts.append("to", from.path[1]);
  return parts.toString();
}

const fields = (term) =>
  ({
    text: [term.text],
    track: [term.track_id],
    part: [term.start_s, term.end_s, term.track_id],
    upload: [term.upload, term.name],
  })[term.kind];

/** The state of an address; invalid values are ignored. */
export function read(text) {
  const parts = new URLSearchParams(text);
  const parsed = structuredClone(START);
  parsed.terms = parts.getAll("ask").map(readTerm).filter(Boolean).slice(0, 32);
  parsed.listener = parts.get("for");
  if (parsed.listener) parsed.terms = []; // a question has terms or a listener
  parsed.blend = number(parts.get("blend"), 0, 1);
  parsed.per_artist = number(parts.get("per_artist"), 1, 1000);
  parsed.where = parts.getAll("where").slice(0, 16);
  parsed.tab =
    ["songs", "maps", "playlist", "audience", "path", "rediscover"].find((tab) => tab === parts.get("view")) ?? null;
  parsed.selected = parts.get("song");
  parsed.path = [parts.get("from"), parts.get("to")];
  return parsed;
}

function readTerm(text) {
  const [weightText, kind, ...rest] = text.split("~");
  const weight = number(weightText, -10, 10);
  if (!weight || !rest[0]) return null;
  const whole = rest.join("~"); // words and ids may contain a ~
  if (kind === "text") return { kind, weight, text: whole };
  if (kind === "track") return { kind, weight, track_id: whole };
  if (kind === "upload") return { kind, weight, upload: rest[0], name: rest.slice(1).join("~") || "a file" };
  if (kind !== "part") return null;
  const [start_s, end_s] = [number(rest[0], 0, 1e6), number(rest[1], 0, 1e6)];
  const track_id = rest.slice(2).join("~");
  return start_s !== null && end_s > start_s && track_id ? { kind, weight, start_s, end_s, track_id } : null;
}

function number(text, least, most) {
  if (text === null || text.trim() === "") return null;
  const value = Number(text);
  return value >= least && value <= most ? value : null;
}
