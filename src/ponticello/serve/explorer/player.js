// Plays one song at a time; the next is the nearest one not yet played.

import { askAlso, recall, remember, select } from "./actions.js";
import { answer } from "./answer.js";
import { byId, byLine, clock, icon, nameOf } from "./dom.js";
import { about, failed, notice } from "./notices.js";
import { source } from "./source.js";
import { state } from "./state.js";
import { drawWave, startWave } from "./wave.js";

const audio = byId("audio");
const N_PEAKS = 400;
const MOMENT_S = 10;
const NEAR = 40; // neighbours considered for the next song

const played = new Set();
const watchers = [];
let current = null;
let peaks = [];
let length_s = 0;

/** Calls `run()` when another song plays, or playback stops or resumes. */
export const onPlayer = (run) => watchers.push(run);

/** {track_id or null, isPlaying}. */
export const nowPlaying = () => ({ track_id: current?.track_id ?? null, isPlaying: !audio.paused && !audio.ended });

const duration = () => (Number.isFinite(audio.duration) && audio.duration > 0 ? audio.duration : length_s);

function render() {
  const { isPlaying } = nowPlaying();
  const name = current ? nameOf(current) : "Nothing is playing";
  byId("player").classList.toggle("is-idle", !current);
  byId("play").replaceChildren(icon(isPlaying ? "pause" : "play"));
  byId("play").setAttribute("aria-label", current ? `${isPlaying ? "Pause" : "Play"} ${name}` : "Play");
  byId("play").disabled = source.isFolder;
  byId("next").disabled = !current;
  byId("moment").disabled = !current || !about.can_hear || current.row === null;
  byId("now-title").disabled = !current;
  byId("now-title").textContent = source.isFolder ? "Sound needs the service" : name;
  byId("now-artist").textContent = current ? byLine(current) : "";
  for (const run of watchers) run();
  tick();
}

function tick() {
  const total = duration();
  const at = Math.min(audio.currentTime, total);
  byId("time").textContent = current ? `${clock(at)} / ${clock(total)}` : "";
  drawWave(byId("waveform"), peaks, total ? at / total : 0);
  const slider = byId("waveform");
  slider.setAttribute("aria-valuemax", String(Math.round(total)));
  slider.setAttribute("aria-valuenow", String(Math.round(at)));
  slider.setAttribute("aria-valuetext", current ? `${clock(at)} of ${clock(total)}` : "nothing is playing");
}

async function drawPeaks(track_id) {
  peaks = [];
  try {
    const waveform = await source.waveform(track_id, N_PEAKS);
    if (current?.track_id !== track_id) return;
    peaks = waveform.peaks;
    length_s = waveform.duration_s;
  } catch {
    // without a waveform the line stays flat, and seeking works; the audio element reports a missing file
  }
  tick();
}

async function refused(track_id) {
  try {
    const response = await fetch(source.audioUrl(track_id), { headers: { Range: "bytes=0-0" } });
    const failure = response.ok ? { message: "The browser cannot play this kind of file." } : await response.json();
    notice("audio", `${nameOf(recall(track_id))}: ${failure.message}`, { kind: "bad" });
  } catch {
    failed({ code: "gone" }, () => {});
  }
  render();
}

async function start(track_id, from_s = 0) {
  if (source.isFolder) return;
  current = recall(track_id);
  played.add(track_id);
  audio.src = source.audioUrl(track_id);
  audio.currentTime = from_s;
  length_s = current.duration_s ?? 0;
  drawPeaks(track_id);
  render();
  try {
    await audio.play();
  } catch (error) {
    if (error.name === "NotAllowedError") notice("audio", "The browser wants a click on Play before it makes a sound.");
  }
}

/** Plays this song, or pauses it if it plays. */
export function toggle(track_id) {
  if (current?.track_id !== track_id) return start(track_id);
  return audio.paused ? audio.play().catch(() => refused(track_id)) : audio.pause();
}

/** Pauses, resumes, or starts `track_id` if no song was played yet. */
export const toggleAny = (track_id) => (current ? toggle(current.track_id) : track_id && toggle(track_id));

/** Plays a song from a position in seconds. */
export const playFrom = (track_id, from_s) => start(track_id, from_s);

/** The nearest song not yet played, at the current blend; the next of the list if the song has no neighbours. */
export async function playNext() {
  if (!current) return;
  const fits = (track) => track.has_audio && !played.has(track.track_id);
  let next = null;
  try {
    const { results } = await source.similar(current.track_id, NEAR, state.blend);
    next = results.find(fits) ?? null;
  } catch (error) {
    if (error.code === "gone") return void failed(error, () => {});
  }
  next ??= answer.results.find(fits) ?? null;
  if (!next) return void notice("audio", "Everything near has been played.");
  remember(next);
  start(next.track_id);
}

/** Connects the player. */
export function startPlayer() {
  byId("next").append(icon("next"));
  byId("play").addEventListener("click", () =>
    toggleAny(state.selected ?? answer.results.find((track) => track.has_audio)?.track_id),
  );
  byId("next").addEventListener("click", playNext);
  byId("now-title").addEventListener("click", () => select(current.track_id));
  byId("volume").addEventListener("input", ({ target }) => (audio.volume = Number(target.value)));
  byId("moment").addEventListener("click", () => {
    const start_s = Math.max(0, Math.min(audio.currentTime - MOMENT_S / 2, duration() - MOMENT_S));
    const end_s = Math.min(duration(), start_s + MOMENT_S);
    askAlso(
      {
        kind: "part",
        track_id: current.track_id,
        start_s: Number(start_s.toFixed(1)),
        end_s: Number(end_s.toFixed(1)),
      },
      1,
    );
  });
  audio.volume = Number(byId("volume").value);
  for (const event of ["play", "pause", "loadedmetadata"]) audio.addEventListener(event, render);
  audio.addEventListener("timeupdate", tick);
  audio.addEventListener("ended", playNext);
  audio.addEventListener("error", () => current && refused(current.track_id));
  startWave(byId("waveform"), {
    seek: (share) => (audio.currentTime = share * duration()),
    move: (by_s) => (audio.currentTime = Math.min(duration(), Math.max(0, audio.currentTime + by_s))),
  });
  addEventListener("resize", tick);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tick);
  render();
}
