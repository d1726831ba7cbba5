// The points of one space, with a grid that finds near ones without visiting all.

const CELLS = 128; // per side of the grid: about three songs per cell at 50,000

/** One space: xs, ys (n) in 0 .. 1, and its grid. flat: x0, y0, x1, y1 .. in 0 .. 65535. */
export class Cloud {
  constructor(flat) {
    this.n = flat.length / 2;
    this.xs = new Float32Array(this.n);
    this.ys = new Float32Array(this.n);
    for (let row = 0; row < this.n; row++) {
      this.xs[row] = flat[2 * row] / 65535;
      this.ys[row] = flat[2 * row + 1] / 65535;
    }
    this.#sort();
  }

  #cell(x, y) {
    const column = Math.min(CELLS - 1, Math.max(0, Math.floor(x * CELLS)));
    return Math.min(CELLS - 1, Math.max(0, Math.floor(y * CELLS))) * CELLS + column;
  }

  /** Rows sorted by cell: `rows[starts[c] .. starts[c + 1]]` are those of cell c. */
  #sort() {
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    const cells = new Uint16Array(this.n);
    for (let row = 0; row < this.n; row++) {
      cells[row] = this.#cell(this.xs[row], this.ys[row]);
      this.starts[cells[row] + 1] += 1;
    }
    for (let cell = 0; cell < CELLS * CELLS; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    this.rows = new Uint32Array(this.n);
    for (let row = 0; row < this.n; row++) this.rows[next[cells[row]]++] = row;
  }

  /** Calls `visit(row)` for every song in a box, and for some around it. */
  around(x0, y0, x1, y1, visit) {
    const [first, last] = [this.#cell(x0, y0), this.#cell(x1, y1)];
    const [left, right] = [first % CELLS, last % CELLS];
    for (let line = first - left; line <= last - right; line += CELLS) {
      for (let at = this.starts[line + left]; at < this.starts[line + right + 1]; at++) visit(this.rows[at]);
    }
  }

  /** The row nearest to a point, at most `reach` away; -1 if there is none. */
  nearest(x, y, reach) {
    let best = -1;
    let least = reach * reach;
    this.around(x - reach, y - reach, x + reach, y + reach, (row) => {
      const distance = (this.xs[row] - x) ** 2 + (this.ys[row] - y) ** 2;
      if (distance <= least) [best, least] = [row, distance];
    });
    return best;
  }

  /** Rows inside a polygon [[x, y], ..], by the even-odd rule. */
  inside(polygon) {
    const [xs, ys] = [polygon.map((point) => point[0]), polygon.map((point) => point[1])];
    const rows = [];
    this.around(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys), (row) => {
      if (isInside(this.xs[row], this.ys[row], polygon)) rows.push(row);
    });
    return rows;
  }
}

/** Whether a point is inside a polygon. */
export function isInside(x, y, polygon) {
  let inside = false;
  for (let at = 0, before = polygon.length - 1; at < polygon.length; before = at++) {
    const [ax, ay] = polygon[at];
    const [bx, by] = polygon[before];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
