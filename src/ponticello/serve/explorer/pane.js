// One of the two maps: its position on the canvas, its offset and zoom, and its points as pixels.
// 50,000 points take 0.1 s as canvas arcs, and a few milliseconds as stamps in a bitmap.

const CLOSEST = 400; // largest zoom
const MARGIN = 0.06; // share of the pane left free around the full map

export class Pane {
  constructor(cloud, name) {
    Object.assign(this, { cloud, name, left: 0, top: 0, width: 1, height: 1, x: 0.5, y: 0.5, zoom: 1, bitmap: null });
  }

  /** The name of the space on the page. */
  get label() {
    return this.name === "preference" ? "taste" : "meaning";
  }

  /** Sets the position and size, in CSS pixels. */
  place(left, top, width, height) {
    Object.assign(this, { left, top, width, height });
  }

  /** The width of the full map at this zoom, in CSS pixels. */
  get scale() {
    return Math.min(this.width, this.height) * (1 - 2 * MARGIN) * this.zoom;
  }

  has(x, y) {
    return x >= this.left && x < this.left + this.width && y >= this.top && y < this.top + this.height;
  }

  /** A song's point on the canvas. */
  at(row) {
    return [
      this.left + this.width / 2 + (this.cloud.xs[row] - this.x) * this.scale,
      this.top + this.height / 2 + (this.cloud.ys[row] - this.y) * this.scale,
    ];
  }

  /** The point of the map under a point of the canvas. */
  under(x, y) {
    return [
      this.x + (x - this.left - this.width / 2) / this.scale,
      this.y + (y - this.top - this.height / 2) / this.scale,
    ];
  }

  /** The song nearest to a point of the canvas, at most `reach_px` away; -1 if there is none. */
  nearest(x, y, reach_px) {
    return this.cloud.nearest(...this.under(x, y), reach_px / this.scale);
  }

  isShown(row) {
    return this.has(...this.at(row));
  }

  moveBy(dx_px, dy_px) {
    this.x = Math.min(1.2, Math.max(-0.2, this.x - dx_px / this.scale));
    this.y = Math.min(1.2, Math.max(-0.2, this.y - dy_px / this.scale));
  }

  /** Zooms by a factor around the canvas point (x, y). */
  zoomBy(factor, x = this.left + this.width / 2, y = this.top + this.height / 2) {
    const [mapX, mapY] = this.under(x, y);
    this.zoom = Math.min(CLOSEST, Math.max(0.7, this.zoom * factor));
    const [newX, newY] = this.under(x, y);
    this.x += mapX - newX;
    this.y += mapY - newY;
    this.moveBy(0, 0);
  }

  showAll() {
    Object.assign(this, { x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Centres a song that is out of view. */
  bring(row) {
    if (this.isShown(row)) return;
    this.x = this.cloud.xs[row];
    this.y = this.cloud.ys[row];
  }

  /** The radius of a point in CSS pixels, smaller with more songs in view. */
  get radius() {
    const seen = this.cloud.n / Math.max(1, this.zoom * this.zoom);
    return Math.min(4.5, Math.max(1, 0.2 * Math.sqrt((this.width * this.height) / Math.max(1, seen))));
  }

  /** Paints all points in view onto a 2D context. rgb: [r, g, b]; ratio: device pixels per CSS pixel. */
  paint(pen, rgb, ratio) {
    const [width, height] = [Math.max(1, Math.round(this.width * ratio)), Math.max(1, Math.round(this.height * ratio))];
    if (this.bitmap?.width !== width || this.bitmap?.height !== height) this.bitmap = new ImageData(width, height);
    const pixels = new Uint32Array(this.bitmap.data.buffer);
    pixels.fill(0);
    const stamp = stampOf(this.radius * ratio);
    const { xs, ys } = this.cloud;
    const scale = this.scale * ratio;
    const [offsetX, offsetY] = [width / 2 - this.x * scale - stamp.half, height / 2 - this.y * scale - stamp.half];
    const colour = (rgb[2] << 16) | (rgb[1] << 8) | rgb[0];
    const [maxX, maxY, size, weights] = [width - stamp.size, height - stamp.size, stamp.size, stamp.weights];
    for (let row = 0; row < xs.length; row++) {
      const x = (xs[row] * scale + offsetX) | 0;
      const y = (ys[row] * scale + offsetY) | 0;
      if (x < 0 || y < 0 || x > maxX || y > maxY) continue;
      for (let line = 0, from = 0; line < size; line++) {
        let pixel = (y + line) * width + x;
        for (let end = from + size; from < end; from++, pixel++) {
          const alpha = pixels[pixel] >>> 24;
          pixels[pixel] = colour | ((alpha + (((255 - alpha) * weights[from]) >> 8)) << 24);
        }
      }
    }
    pen.putImageData(this.bitmap, Math.round(this.left * ratio), Math.round(this.top * ratio));
  }
}

const stamps = new Map();

/** A soft disc as size x size weights of 0 .. 255. */
function stampOf(radius) {
  const key = Math.round(radius * 4);
  if (stamps.has(key)) return stamps.get(key);
  const half = Math.max(1, Math.ceil(radius));
  const size = 2 * half + 1;
  const weights = new Uint8Array(size * size);
  for (let y = -half; y <= half; y++) {
    for (let x = -half; x <= half; x++) {
      const cover = Math.min(1, Math.max(0, key / 4 + 0.5 - Math.hypot(x, y)));
      weights[(y + half) * size + x + half] = Math.round(cover * 150);
    }
  }
  stamps.set(key, { half, size, weights });
  return stamps.get(key);
}
