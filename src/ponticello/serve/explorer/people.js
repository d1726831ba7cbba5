// The listeners of a song (audience), and songs near a listener's preference that they never played (rediscover).

import { recall } from "./actions.js";
import { fillBar, newBar, reachOf, sum } from "./bars.js";
import { button, byId, byLine, debounced, el, isWide, nameOf } from "./dom.js";
import { about } from "./notices.js";
import { source } from "./source.js";
import { change, state, watch } from "./state.js";

const N_AUDIENCE = 20; // listeners shown
const N_LOOKED_AT = 100; // requested, so that some of them have not played the song
const N_LISTENERS = 100;
let current = "";
let isNewOnly = false; // shows only listeners who have not played the song

/** "listeners" or "simulated listeners". */
const simulatedNote = (isSimulated) =>
  isSimulated
    ? el("p", { class: "simulated boxed", text: "These listeners are simulated: nobody real is behind them." })
    : null;

const empty = (title, ...lines) =>
  el("div", { class: "empty" }, el("h3", { text: title }), ...lines.map((text) => el("p", { text })));

const noListeners = () =>
  empty(
    "No listeners",
    "This library has no listening history. Bring one in with: ponticello import-history FILE -L LIBRARY",
  );

const askFor = (user_id) => change({ listener: user_id, terms: [], tab: isWide() ? "rediscover" : "songs" });

function listenerRow(listener, reach) {
  const bar = newBar();
  fillBar(bar, listener, reach);
  return el(
    "li",
    {},
    button(listener.user_id, () => askFor(listener.user_id), {
      class: "choose",
      "aria-label": `Rediscover for ${listener.user_id}`,
    }),
    el("span", { class: "score" }, bar, el("span", { class: "sum", text: sum(listener) })),
    el("span", { class: listener.already_played ? "tag" : "note", text: listener.already_played ? "has heard it" : "new to them" }),
  );
}

async function renderAudience() {
  const body = byId("audience-body");
  const track_id = state.selected;
  if (state.tab !== "audience") return;
  if (!about.n_listeners && !source.isFolder) return void body.replaceChildren(noListeners());
  if (!track_id)
    return void body.replaceChildren(
      empty("No song chosen", "Choose a song of the list or the maps; the key a opens its audience."),
    );
  const request = (current = `${track_id} ${state.blend}`);
  try {
    const { listeners, simulated } = await source.audience(track_id, N_LOOKED_AT, state.blend);
    if (request !== current) return;
    const track = recall(track_id);
    const shown = listeners.filter((listener) => !isNewOnly || !listener.already_played).slice(0, N_AUDIENCE);
    const reach = reachOf(shown);
    const only = el("input", {
      type: "checkbox",
      id: "audience-new",
      checked: isNewOnly,
      on: { change: ({ target }) => ((isNewOnly = target.checked), renderAudience()) },
    });
    const hadFocus = document.activeElement?.id === "audience-new";
    body.replaceChildren(
      el("p", {}, "Closest to ", el("strong", { text: nameOf(track) }), ` · ${byLine(track)}`),
      simulatedNote(simulated) ?? "",
      el("label", { class: "check" }, only, "only those who have not heard it"),
      el(
        "ol",
        { class: "plain people", "aria-label": "Listeners, closest first" },
        ...shown.map((listener) => listenerRow(listener, reach)),
      ),
      shown.length ? "" : el("p", { class: "note", text: `The ${listeners.length} closest have all heard it.` }),
    );
    if (hadFocus) only.focus();
  } catch (error) {
    if (request === current) body.replaceChildren(empty("The audience is not known", error.message));
  }
}

function renderListeners({ listeners, n_total, simulated }) {
  const find = el("input", {
    id: "listener-find",
    type: "search",
    autocomplete: "off",
    placeholder: "id of a listener",
  });
  const items = listeners.map(({ user_id, n_liked }) =>
    el(
      "li",
      { dataset: { user: user_id } },
      button(user_id, () => askFor(user_id), { class: "choose", "aria-pressed": String(user_id === state.listener) }),
      el("span", { class: "note", text: `${n_liked.toLocaleString("en")} liked` }),
    ),
  );
  const list = el("ul", { id: "listener-list", class: "plain people", "aria-label": "Listeners" }, ...items);
  find.addEventListener("input", () =>
    items.forEach((item) => (item.hidden = !item.dataset.user.includes(find.value.trim()))),
  );
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && find.value.trim()) askFor(find.value.trim());
  });
  const more =
    n_total > listeners.length
      ? el("p", {
          class: "note",
          text: `${listeners.length} of ${n_total.toLocaleString("en")} are shown; type an id and press Enter for another.`,
        })
      : "";
  byId("rediscover-body").replaceChildren(
    el("p", { text: "Whose ears? The list then holds what they never played but is close to what they like." }),
    simulatedNote(simulated) ?? "",
    el("div", { class: "row" }, el("label", { for: "listener-find", text: "Listener" }), find),
    more,
    list,
  );
}

let loaded = false;
async function renderRediscover() {
  if (state.tab !== "rediscover") return;
  if (!loaded) {
    if (!about.n_listeners && !source.isFolder) return void byId("rediscover-body").replaceChildren(noListeners());
    try {
      renderListeners(await source.listeners(N_LISTENERS, 0));
      loaded = true;
    } catch (error) {
      return void byId("rediscover-body").replaceChildren(
        empty("Not now", error.message),
        button("Try again", renderRediscover),
      );
    }
  }
  for (const item of byId("rediscover-body").querySelectorAll("li")) {
    item.querySelector("button").setAttribute("aria-pressed", String(item.dataset.user === state.listener));
  }
}

/** Builds both panels. */
export function startPeople() {
  byId("panel-audience").replaceChildren(
    el("h2", { id: "audience-title", text: "Audience" }),
    el("div", { id: "audience-body" }),
  );
  byId("panel-rediscover").replaceChildren(
    el("h2", { id: "rediscover-title", text: "Rediscover" }),
    el("div", { id: "rediscover-body" }),
  );
  const audienceSoon = debounced(renderAudience, 120);
  watch((changed) => {
    if (["selected", "tab", "blend"].some((name) => changed.has(name))) audienceSoon();
    if (changed.has("tab") || changed.has("listener")) renderRediscover();
  });
}
