// The calls to the service, as in docs/api.md.

/** An error answer: code as in docs/api.md, or "gone" without an answer. */
export class Refused extends Error {
  constructor(code, message, status = 0) {
    super(message);
    Object.assign(this, { code, status });
  }
}

/** Whether the page itself aborted the call. */
export const isAborted = (error) => error.name === "AbortError";

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (isAborted(error)) throw error;
    throw new Refused("gone", "The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refused(
    problem.code ?? "internal",
    problem.message ?? `The service answered with status ${response.status}.`,
    response.status,
  );
}

const get = async (path, parameters = {}, options = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return (await call(query ? `${path}?${query}` : path, options)).json();
};

const send = (path, body, options = {}) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    ...options,
  });

const track_path = (track_id, what = "") => `api/tracks/${encodeURIComponent(track_id)}${what}`;

export const isFolder = false;
export const library = () => get("api/library");
export const search = async (ask, signal) => (await send("api/search", ask, { signal })).json();
export const track = (track_id) => get(track_path(track_id));
export const tracks = (text, k, offset, where, signal) => {
  const query = new URLSearchParams({ k: String(k), offset: String(offset) });
  if (text) query.set("text", text);
  for (const filter of where) query.append("where", filter);
  return get(`api/tracks?${query}`, {}, { signal });
};
export const similar = (track_id, k, blend) => get(track_path(track_id, "/similar"), { k, blend });
export const audience = (track_id, k, blend) => get(track_path(track_id, "/audience"), { k, blend });
export const audioUrl = (track_id) => track_path(track_id, "/audio");
export const waveform = (track_id, n) => get(track_path(track_id, "/waveform"), { n });
export const listeners = (k, offset) => get("api/listeners", { k, offset });
export const path = (from, to, n, blend) => get("api/path", { from, to, n, blend });
export const map = () => get("api/map");
export const explain = async (question, track_id) => (await send("api/explain", { ...question, track_id })).json();
export const isBack = () =>
  call("healthz").then(
    () => true,
    () => false,
  );

export function recommend(user_id, ask, signal) {
  const query = new URLSearchParams();
  for (const name of ["k", "offset", "blend", "per_artist"]) if (ask[name] !== null) query.set(name, String(ask[name]));
  for (const filter of ask.where) query.append("where", filter);
  return get(`api/recommend/${encodeURIComponent(user_id)}?${query}`, {}, { signal });
}

export async function upload(file) {
  const form = new FormData();
  form.append("file", file);
  return (await call("api/uploads", { method: "POST", body: form })).json();
}

/** A playlist as a file in m3u8, jspf or csv. */
export const exported = async (format, title, track_ids) =>
  (await send(`api/export/${format}`, { title, track_ids })).blob();
