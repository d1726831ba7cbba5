// Builds the page from data: values are set as text, so that a file's tags cannot become markup.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element. Options: class, text, on: {event: handler}, dataset, and attributes; null and false omit one. */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SHAPES = {
  play: "M7 4.5v15l12-7.5z",
  pause: "M7 5h3.6v14H7zM13.4 5H17v14h-3.6z",
  next: "M5 5v14l9-7zM15.5 5H19v14h-3.5z",
  heart: "M12 20s-7.5-4.6-7.5-10A4.3 4.3 0 0 1 12 7.3 4.3 4.3 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z",
  close: "M6.5 5.1 12 10.6l5.5-5.5 1.4 1.4-5.5 5.5 5.5 5.5-1.4 1.4-5.5-5.5-5.5 5.5-1.4-1.4 5.5-5.5-5.5-5.5z",
};

/** An icon named in SHAPES; the button around it has the label. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

/** A button with a text label. */
export const button = (text, onClick, options = {}) =>
  el("button", { type: "button", class: "quiet", text, on: { click: onClick }, ...options });

/** `run` once calls have paused for `wait_ms`. */
export function debounced(run, wait_ms) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), wait_ms);
  };
}

/** `run` at most once every `wait_ms`, the last call never lost: for a slider that updates live. */
export function throttled(run, wait_ms) {
  let timer = 0;
  let last = 0;
  return (...values) => {
    clearTimeout(timer);
    const now = performance.now();
    const due = Math.max(0, last + wait_ms - now);
    timer = setTimeout(() => {
      last = performance.now();
      run(...values);
    }, due);
  };
}

/** Whether the user prefers reduced motion. */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const wide = matchMedia("(min-width: 62rem)"); // as in style.css

/** Whether the list and the side panel fit next to each other. */
export const isWide = () => wide.matches;

/** Calls `run()` when that changes. */
export const onWidth = (run) => wide.addEventListener("change", run);

/** A colour of the style sheet by its name, such as "semantic". */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Seconds as 3:05; empty for an unknown duration. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** "1 song", "2,000 songs". */
export const countOf = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** The displayed name of a song: its title, or a note with the end of its id. */
export const nameOf = (track) => track.title || `Untitled (${track.track_id})`;

/** Artist and album in one line, as far as they are known. */
export const byLine = (track) => [track.artist, track.album].filter(Boolean).join(" · ") || "artist unknown";
