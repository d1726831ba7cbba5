// A song's waveform as bars on a canvas, which is also a slider.

import { colour } from "./dom.js";

const BAR_PX = 3; // a bar and the gap after it
const STEP_S = 5;

/** Draws the peaks, the played ones in full colour. share: 0 .. 1, position in the song. */
export function drawWave(canvas, peaks, share) {
  const ratio = Math.min(devicePixelRatio, 2);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const [heard, ahead] = [colour("accent"), colour("edge")];
  const n = Math.floor(width / BAR_PX);
  for (let bar = 0; bar < n; bar++) {
    const peak = peaks.length ? peaks[Math.floor((bar / n) * peaks.length)] : 0;
    const tall = Math.max(2, peak * (height - 4));
    pen.fillStyle = bar / n < share ? heard : ahead;
    pen.fillRect(bar * BAR_PX, (height - tall) / 2, BAR_PX - 1, tall);
  }
}

/** Makes the canvas a slider: click, drag, arrow keys, Home and End. */
export function startWave(canvas, { seek, move }) {
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    seek(Math.min(0.999, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    at(event);
  });
  canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && at(event));
  const keys = {
    ArrowRight: () => move(STEP_S),
    ArrowUp: () => move(STEP_S),
    ArrowLeft: () => move(-STEP_S),
    ArrowDown: () => move(-STEP_S),
    PageUp: () => move(6 * STEP_S),
    PageDown: () => move(-6 * STEP_S),
    Home: () => seek(0),
    End: () => seek(0.999),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
}
