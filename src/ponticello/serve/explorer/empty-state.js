// The message for an empty list: its reason, and actions that help.

import { answer, ask } from "./answer.js";
import { button, el } from "./dom.js";
import { about } from "./notices.js";
import { change, state } from "./state.js";

const without = (kind) => change({ terms: state.terms.filter((term) => term.kind !== kind) });

const REASONS = {
  not_ready: ["This library cannot be asked yet", "It has no index. In a terminal: ponticello embed -L LIBRARY"],
  no_preference: ["This library has one space", ""],
  model_missing: [
    "The model is missing",
    "Words and files cannot be understood without it; songs still find similar songs.",
  ],
  model_changed: [
    "The model has changed",
    "Songs still find similar songs. For words and files, in a terminal: ponticello embed -L LIBRARY",
  ],
  upload_expired: ["The file you gave is gone", "Uploads are kept for a while only. Drop it again."],
  gone: ["The service does not answer", "It may have been stopped. The page keeps trying."],
  unauthorized: ["This service wants its token", "Reload the page and sign in."],
  needs_service: ["Not in this copy", ""],
};

function problemParts({ code, message }) {
  const [title, advice] = REASONS[code] ?? ["That did not work", ""];
  const actions = [];
  if (code === "upload_expired") actions.push(button("Take it out of the question", () => without("upload")));
  if (code.startsWith("model_") && state.terms.some((term) => term.kind === "text"))
    actions.push(button("Take the words out", () => without("text")));
  if (code !== "needs_service" && code !== "unauthorized") actions.push(button("Try again", () => ask()));
  return [title, [message, advice].filter(Boolean), actions];
}

function nothingParts() {
  if (answer.mode === "all" && !state.where.length) {
    return [
      "This library is empty",
      ["Bring in music: ponticello scan ~/Music -L LIBRARY, then prepare and embed."],
      [],
    ];
  }
  const actions = [];
  if (state.where.length) actions.push(button("Drop all filters", () => change({ where: [] })));
  return ["Nothing found", [state.where.length ? "No song passes the filters." : "No song is left to show."], actions];
}

/** Fills `node` with the reason for an empty list, or hides it. */
export function showEmptyState(node) {
  const isEmpty = !answer.results.length && !answer.is_loading;
  node.hidden = !isEmpty && !answer.problem;
  if (node.hidden) return;
  const [title, lines, actions] = answer.problem ? problemParts(answer.problem) : nothingParts();
  node.replaceChildren(
    el("h3", { text: title }),
    ...lines.map((text) => el("p", { text })),
    el("div", { class: "doings" }, ...actions),
  );
  if (about.n_tracks === 0 && !answer.problem) node.querySelector("h3").textContent = "This library is empty";
}
