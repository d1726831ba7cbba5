// Notices at the top of the page about the library or the service, and retries while the service is gone.

import { ask, answer, onAnswer } from "./answer.js";
import { button, byId, countOf, el } from "./dom.js";
import { source } from "./source.js";

/** The answer of GET /api/library, filled by `meetLibrary`; one shared object. */
export const about = {
  problems: [],
  columns: [],
  filter_values: {},
  limits: {},
  can_search_text: true,
  can_hear: true,
  has_preference: true,
  one_space: "",
};

const RETRY_S = 4;
const shown = new Map();
let retry = 0;

/** Shows a notice under a key, until it is dropped or replaced. */
export function notice(key, message, { kind = "info", actions = [], canClose = true } = {}) {
  drop(key);
  const node = el(
    "div",
    { class: `notice ${kind}`, role: kind === "bad" ? "alert" : null },
    el("p", { text: message }),
    ...actions,
  );
  if (canClose) node.append(button("Close", () => drop(key), { "aria-label": `Close: ${message}` }));
  shown.set(key, node);
  byId("notices").append(node);
}

/** Removes a notice. */
export function drop(key) {
  shown.get(key)?.remove();
  shown.delete(key);
}

/** Loads the library's description; throws Refused if the service does not answer. */
export async function meetLibrary() {
  Object.assign(about, await source.library());
  document.title = `${about.name} · Ponticello`;
  const simulated = about.listeners_are_simulated ? "simulated " : "";
  const listeners = about.n_listeners ? countOf(about.n_listeners, `${simulated}listener`) : "no listeners";
  byId("facts").replaceChildren(
    el("strong", { text: about.name }),
    el("span", { text: countOf(about.n_tracks, "song") }),
    el("span", { text: listeners, class: about.listeners_are_simulated && about.n_listeners ? "simulated" : null }),
  );
  for (const { code, message } of about.problems) notice(code, message);
  if (source.isFolder)
    notice(
      "folder",
      "A copy without its service: similar songs, maps, list and export work; words, sound, audience, path and rediscovery need “ponticello serve”.",
    );
}

/** Shows that the service is gone and retries until it answers; `again` then runs once. */
export function serviceGone(again) {
  if (shown.has("gone")) return;
  const tryNow = async () => {
    clearTimeout(retry);
    if (await source.isBack()) {
      drop("gone");
      again();
    } else retry = setTimeout(tryNow, RETRY_S * 1000);
  };
  notice("gone", "The service does not answer. The page tries again every few seconds; what you gathered stays here.", {
    kind: "bad",
    canClose: false,
    actions: [button("Try now", tryNow)],
  });
  retry = setTimeout(tryNow, RETRY_S * 1000);
}

/** Shows an error; an unreachable service has its own notice. */
export function failed(error, again = ask) {
  if (error.code === "gone" && !source.isFolder) serviceGone(again);
  else if (error.code === "unauthorized") {
    notice("token", "This service wants its token: reload the page and sign in.", {
      kind: "bad",
      canClose: false,
      actions: [button("Reload", () => location.reload())],
    });
  } else notice(`failed-${error.code}`, error.message, { kind: "bad" });
}

/** Connects the notices with the answers. */
export function startNotices() {
  onAnswer(() => {
    if (["gone", "unauthorized"].includes(answer.problem?.code)) failed(answer.problem);
  });
}
