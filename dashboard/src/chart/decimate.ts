/**
 * Turns a column of values into the points of a line, at most four for each column of pixels.
 *
 * In a pixel column only the first, the lowest, the highest and the last value can be seen; joined
 * in the order in which they came they look the same as all of them. Where they are less than half
 * a pixel apart, one point will do. NaN interrupts the line, and so does a known gap between two
 * values.
 */

/** Where a value lies on the canvas: pixel = offset + factor × value. */
export interface Scale {
  offset: number;
  factor: number;
}

/**
 * Points of a line, x and y in turn; a pair of NaN lifts the pen. Grows as needed, and is reused.
 */
export class PointBuffer {
  data = new Float64Array(4096);
  length = 0;

  clear(): void {
    this.length = 0;
  }

  push(x: number, y: number): void {
    if (this.length + 2 > this.data.length) {
      const grown = new Float64Array(this.data.length * 2);
      grown.set(this.data);
      this.data = grown;
    }
    this.data[this.length] = x;
    this.data[this.length + 1] = y;
    this.length += 2;
  }

  lift(): void {
    if (this.length > 0 && !Number.isNaN(this.data[this.length - 1] as number)) {
      this.push(Number.NaN, Number.NaN);
    }
  }
}

/**
 * Fills `out` with the line through values `from` … `to - 1`; `breaks` are places in rising order.
 */
export function decimate(
  xs: Float64Array,
  ys: Float64Array,
  from: number,
  to: number,
  x: Scale,
  y: Scale,
  out: PointBuffer,
  breaks: Float64Array = NO_BREAKS,
): void {
  out.clear();
  let nextBreak = 0;
  let column = Number.NaN;
  let first = 0,
    last = 0,
    low = 0,
    high = 0;
  let lowIndex = -1,
    highIndex = -1,
    firstIndex = -1,
    lastIndex = -1;
  let firstX = 0,
    lastX = 0;
  // The end of a line is shown where it is, however flat its column.
  let ending = false;

  const flush = (): void => {
    if (lastIndex < 0) return;
    out.push(firstX, y.offset + y.factor * first);
    const flat = Math.abs(y.factor) * (high - low) < FLAT_PX;
    if (flat && !ending) {
      lastIndex = -1;
      return;
    }
    if (lowIndex !== highIndex) {
      const early = lowIndex < highIndex ? low : high;
      const late = lowIndex < highIndex ? high : low;
      if (early !== first) out.push(firstX, y.offset + y.factor * early);
      if (late !== last) out.push(lastX, y.offset + y.factor * late);
    }
    if (lastIndex !== firstIndex) out.push(lastX, y.offset + y.factor * last);
    lastIndex = -1;
  };

  for (let i = from; i < to; i++) {
    const value = ys[i] as number;
    const at = xs[i] as number;
    let broken = Number.isNaN(value);
    while (nextBreak < breaks.length && (breaks[nextBreak] as number) <= at) {
      nextBreak += 1;
      broken = broken || i > from;
    }
    if (broken) {
      ending = true;
      flush();
      ending = false;
      out.lift();
      column = Number.NaN;
      if (Number.isNaN(value)) continue;
    }
    const pixel = x.offset + x.factor * at;
    const here = Math.floor(pixel);
    if (here !== column) {
      flush();
      column = here;
      first = low = high = value;
      firstX = pixel;
      firstIndex = lowIndex = highIndex = i;
    } else if (value < low) {
      low = value;
      lowIndex = i;
    } else if (value > high) {
      high = value;
      highIndex = i;
    }
    last = value;
    lastX = pixel;
    lastIndex = i;
  }
  ending = true;
  flush();
}

const FLAT_PX = 0.5;
const NO_BREAKS = new Float64Array(0);

/** The lowest and the highest of values `from` … `to - 1`, widening `into`; NaN does not count. */
export function widen(
  ys: Float64Array,
  from: number,
  to: number,
  into: { low: number; high: number },
): void {
  let { low, high } = into;
  for (let i = from; i < to; i++) {
    const value = ys[i] as number;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  into.low = low;
  into.high = high;
}
