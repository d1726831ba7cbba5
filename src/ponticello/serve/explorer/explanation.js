// Explains a song's rank: its score per term or seed song, and the tags it shares with them.

import { termName } from "./actions.js";
import { questionNow } from "./answer.js";
import { hundredths, signed, sum } from "./bars.js";
import { clock, countOf, el, nameOf } from "./dom.js";
import { about } from "./notices.js";
import { playFrom } from "./player.js";
import { source } from "./source.js";
import { state } from "./state.js";

const MOST_SEEDS = 6; // lines of the table
const SETTLE_MS = 250; // moving through the list by keys does not ask for every song

/** The source of a score component: a term of the question, or a song a listener played. */
function seedName(part) {
  const term = part.term === null ? undefined : state.terms[part.term];
  return term ? termName(term) : (part.text ?? nameOf(part));
}

/** A row of the table; values: hundredths, one per space. */
const row = (name, values) =>
  el("tr", {}, el("th", { scope: "row", text: name }), ...values.map((value) => el("td", { text: signed(value) })));

/** One line per source, largest first; the rest are summed in one line. */
function seedLines(parts) {
  const weight = (part) => Math.abs(part.semantic + part.preference);
  const sorted = parts.length > MOST_SEEDS ? [...parts].sort((a, b) => weight(b) - weight(a)) : parts;
  const lines = sorted
    .slice(0, MOST_SEEDS)
    .map((part) => ({ ...part, name: `${part.weight < 0 ? "− " : ""}${seedName(part)}` }));
  const rest = sorted.slice(MOST_SEEDS);
  const total = (space) => rest.reduce((sum, part) => sum + part[space], 0);
  if (rest.length)
    lines.push({
      name: countOf(rest.length, "more song"),
      semantic: total("semantic"),
      preference: total("preference"),
    });
  return lines;
}

/** The table adds up as printed, down and across. */
function partsTable(result) {
  const lines = seedLines(result.why.components);
  const columns = about.has_preference ? ["semantic", "preference"] : ["semantic"];
  const totals = hundredths(
    columns.map((space) => result[space]),
    result.score,
  );
  const values = columns.map((space, at) =>
    hundredths(
      lines.map((line) => line[space]),
      totals[at] / 100,
    ),
  );
  const heads = about.has_preference ? ["Because of", "Meaning", "Taste"] : ["Because of", "Score"];
  const foot = about.has_preference ? `Score ${sum(result)}` : "Score";
  return el(
    "table",
    { class: "parts" },
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
    el(
      "tbody",
      {},
      ...lines.map(({ name }, at) =>
        row(
          name,
          values.map((column) => column[at]),
        ),
      ),
    ),
    el("tfoot", {}, row(foot, totals)),
  );
}

function facts(result) {
  const { shared_tags, n_listeners } = result.why;
  const lines = [];
  if (shared_tags.length)
    lines.push(
      el(
        "p",
        { class: "tags" },
        "Shares ",
        ...shared_tags.slice(0, 12).map((tag) => el("span", { class: "tag", text: tag })),
      ),
    );
  const { min_users: k, n_listeners: n_all, listeners_are_simulated: simulated } = about;
  if (n_all && !source.isFolder) {
    const who = simulated ? "simulated listeners" : "listeners";
    lines.push(
      el("p", {
        class: "note",
        text:
          n_listeners === null
            ? `Fewer than ${k} ${who} liked it: how many is not shown.`
            : `${n_listeners} ${who} liked it.`,
      }),
    );
  }
  return lines;
}

async function bestMoment(node, result) {
  const question = questionNow();
  if (!question || !about.can_hear || source.isFolder || !result.has_audio) return;
  await new Promise((settled) => setTimeout(settled, SETTLE_MS));
  if (!node.isConnected) return;
  try {
    const { segment } = await source.explain(question, result.track_id);
    if (!segment || !node.isConnected) return;
    const from = clock(segment.start_s) || "0:00";
    node.append(
      el("button", {
        type: "button",
        class: "quiet",
        text: `Best match from ${from} to ${clock(segment.end_s)}`,
        on: { click: () => playFrom(result.track_id, segment.start_s) },
      }),
    );
  } catch (error) {
    if (node.isConnected)
      node.append(el("p", { class: "note", text: `Its best moment is not known: ${error.message}` }));
  }
}

/** Fills `node` with the explanation of `result`; without a question, with its tags. */
export function showExplanation(node, result) {
  if (!result.why) {
    const tags = [...result.genres, ...result.tags, ...result.machine_tags].slice(0, 12);
    if (tags.length)
      node.replaceChildren(el("p", { class: "tags" }, ...tags.map((tag) => el("span", { class: "tag", text: tag }))));
    return;
  }
  node.replaceChildren(partsTable(result), ...facts(result));
  bestMoment(node, result);
}
