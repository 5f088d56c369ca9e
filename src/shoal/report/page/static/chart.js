// A chart: one number of all runs that are shown, drawn on a canvas.

import { make, number, say, short } from "/words.js";

const LIGHT = ["#1f6fb4", "#b8450b", "#15803d", "#b91c1c", "#7c3aed", "#8a4b2a", "#be185d", "#4b5563", "#6b6500", "#0e7490"];
const DARK = ["#6cb2f5", "#fb923c", "#4ade80", "#f87171", "#b794f6", "#d6a37c", "#f472b6", "#b0b8c4", "#c9cc3f", "#3fd0e0"];
const DASHES = [[], [6, 3], [2, 2], [8, 2, 2, 2]];
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 10, 8, 20];
const HEIGHT = 190;
const MOST_TRAVEL = 2500; // pixels
const MOST_THICK = 1000; // points of all curves of a chart
const FINE = { dashes: [], thick: false };

export const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function color(place) {
  return (dark.matches ? DARK : LIGHT)[place % LIGHT.length];
}

export function dash(place) {
  return DASHES[Math.floor(place / LIGHT.length) % DASHES.length];
}

export class Chart {
  constructor(key) {
    this.key = key;
    this.canvas = make("canvas", { tabindex: "0", role: "img", "aria-describedby": "chart-help" });
    this.canvas.height = HEIGHT;
    this.caption = make("figcaption", {}, key);
    this.figure = make("figure", { class: "chart" }, this.caption, this.canvas);
    this.visible = false;
    this.width = 0;
    this.scale = null;
  }

  resize(width) {
    const ratio = window.devicePixelRatio || 1;
    if (this.width === width && this.ratio === ratio) return false;
    this.width = width;
    this.ratio = ratio;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(HEIGHT * ratio);
    return true;
  }

  get inner() {
    return Math.max(16, this.width - LEFT - RIGHT);
  }

  // Draws the curves. `shown`: {run, place, curve, name} of each; `options`: view, smooth, log, cursor.
  draw(shown, options) {
    const context = this.canvas.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, HEIGHT);
    const [from, to] = options.view ?? options.ends ?? [0, 1];
    const parts = shown.map((one) => part(one, options.view, from, to));
    const range = rangeOf(parts, options.log);
    const y = scaleY(range, options.log);
    const x = (value) => LEFT + ((value - from) / (to - from || 1)) * this.inner;
    this.scale = { from, to, x };
    this.frame(context, range, from, to, x, y, options);
    context.save();
    context.beginPath();
    context.rect(LEFT, TOP - 2, this.inner, HEIGHT - TOP - BOTTOM + 4);
    context.clip();
    context.lineJoin = "bevel";
    const ax = this.inner / (to - from || 1);
    const bx = LEFT - from * ax;
    this.thick = parts.reduce((total, one) => total + one.end - one.begin, 0) < MOST_THICK;
    const means = parts.map((one) => this.curve(context, one, ax, bx, y, options));
    means.forEach((draw) => draw?.());
    if (options.cursor !== null) {
      context.strokeStyle = dark.matches ? "#9aa4b2" : "#555c66";
      context.lineWidth = 1;
      context.setLineDash([]);
      context.beginPath();
      context.moveTo(x(options.cursor), 0);
      context.lineTo(x(options.cursor), HEIGHT);
      context.stroke();
    }
    context.restore();
  }

  // Draws a curve; what is returned draws the line that is to lie above all curves.
  curve(context, one, ax, bx, y, options) {
    const { values, begin, end } = one;
    context.strokeStyle = color(one.place);
    const dashes = dash(one.place);
    if (end - begin === 1) {
      context.fillStyle = context.strokeStyle;
      context.fillRect(values[2 * begin] * ax + bx - 2, y(values[2 * begin + 1]) - 2, 4, 4);
      return null;
    }
    const heights = heightsOf(values, begin, end, y);
    const noisy = travel(heights) > MOST_TRAVEL;
    const style = noisy ? FINE : { dashes, thick: this.thick };
    if (options.smooth > 0 || (noisy && one.level > 0)) {
      const means = options.smooth > 0 ? smoothed(values, begin, end, options.smooth) : middles(values, begin, end);
      context.globalAlpha = 0.2;
      line(context, values, begin, heights, ax, bx, style);
      context.globalAlpha = 1;
      const smooth = heightsOf(means, 0, means.length / 2, y);
      return () => {
        context.strokeStyle = color(one.place);
        line(context, means, 0, smooth, ax, bx, travel(smooth) > MOST_TRAVEL ? FINE : { dashes, thick: this.thick });
      };
    }
    line(context, values, begin, heights, ax, bx, style);
    return null;
  }

  frame(context, range, from, to, x, y, options) {
    const ink = dark.matches ? "#aab3c0" : "#4a515c";
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = ink;
    context.strokeStyle = dark.matches ? "#2c333d" : "#e2e5ea";
    context.lineWidth = 1;
    context.setLineDash([]);
    context.beginPath();
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of range ? marks(range, 4, options.log) : []) {
      const at = Math.round(y(value)) + 0.5;
      context.moveTo(LEFT, at);
      context.lineTo(LEFT + this.inner, at);
      context.fillText(number(value, 3), LEFT - 6, at);
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const value of range ? marks([from, to], Math.max(2, Math.floor(this.inner / 90)), false) : []) {
      const at = Math.round(x(value)) + 0.5;
      context.moveTo(at, TOP);
      context.lineTo(at, HEIGHT - BOTTOM);
      const text = short(value);
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(at, this.width - half - 2), HEIGHT - BOTTOM + 5);
    }
    context.stroke();
    if (!range) {
      context.textAlign = "center";
      context.fillText("no numbers here", LEFT + this.inner / 2, HEIGHT / 2);
    }
  }

  // What a reader of the screen hears: where each run stands.
  describe(shown) {
    const parts = shown.filter((one) => one.curve.points).map((one) => `${one.name} ${number(one.curve.last())}`);
    const text = `${this.key}, last values: ${parts.slice(0, 12).join("; ") || "none"}`;
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
    const only = shown.length === 1 && parts.length ? `  ${number(shown[0].curve.last())}` : "";
    say(this.caption, `${this.key}${only}`);
  }

  // Where on the axis a pointer stands.
  at(offset) {
    if (!this.scale) return null;
    const share = (offset - LEFT) / this.inner;
    return share < 0 || share > 1 ? null : this.scale.from + share * (this.scale.to - this.scale.from);
  }
}

// The points of a curve that lie in a part of the axis, and one more on each side.
function part(one, view, from, to) {
  const [values, points, level] = one.curve.shown(view);
  const begin = Math.max(0, place(values, points, from) - 1);
  const end = Math.min(points, place(values, points, to) + 1);
  return { place: one.place, level, values, begin, end: Math.max(begin, end) };
}

// The first point at `x` or beyond it.
export function place(values, points, x) {
  let [low, high] = [0, points];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[2 * middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

function rangeOf(parts, log) {
  let [low, high] = [Infinity, -Infinity];
  for (const { values, begin, end } of parts) {
    for (let point = begin; point < end; point++) {
      const value = values[2 * point + 1];
      if (log && value <= 0) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return null;
  if (low === high) {
    const around = Math.abs(low) / 10 || 1;
    return log ? [low / 2, low * 2] : [low - around, high + around];
  }
  if (log) return [low / 1.1, high * 1.1];
  const around = (high - low) * 0.04;
  return [low - around, high + around];
}

function scaleY(range, log) {
  if (!range) return () => HEIGHT / 2;
  const tall = HEIGHT - TOP - BOTTOM;
  if (log) {
    const [low, high] = range.map(Math.log);
    return (value) => (value > 0 ? HEIGHT - BOTTOM - ((Math.log(value) - low) / (high - low)) * tall : HEIGHT);
  }
  const scale = tall / (range[1] - range[0]);
  return (value) => HEIGHT - BOTTOM - (value - range[0]) * scale;
}

function heightsOf(values, begin, end, y) {
  const heights = new Float64Array(end - begin);
  for (let point = begin; point < end; point++) heights[point - begin] = y(values[2 * point + 1]);
  return heights;
}

// How far a curve goes up and down.
function travel(heights) {
  let total = 0;
  for (let at = 1; at < heights.length; at++) total += Math.abs(heights[at] - heights[at - 1]);
  return total;
}

// A few curves get lines that are easy to see. Of many points, or of a curve that goes up and down all the time, a line
// is as thin as a pixel: a browser draws it ten to a hundred times faster.
function line(context, values, begin, heights, ax, bx, { dashes, thick }) {
  context.lineWidth = thick ? 1.6 : 1 / context.getTransform().a;
  context.setLineDash(dashes);
  context.beginPath();
  for (let at = 0; at < heights.length; at++) context.lineTo(values[2 * (begin + at)] * ax + bx, heights[at]);
  context.stroke();
}

// The middle between the lowest and the highest of each bucket, over some of them.
const OVER = 4;
function middles(values, begin, end) {
  const count = Math.floor((end - begin) / (2 * OVER));
  const found = new Float64Array(2 * count);
  for (let place = 0; place < count; place++) {
    let [x, y] = [0, 0];
    for (let at = 0; at < 2 * OVER; at++) {
      const point = begin + place * 2 * OVER + at;
      x += values[2 * point];
      y += values[2 * point + 1];
    }
    found[2 * place] = x / (2 * OVER);
    found[2 * place + 1] = y / (2 * OVER);
  }
  return found;
}

// The exponential mean of the points before, without the first value's weight.
function smoothed(values, begin, end, weight) {
  const found = new Float64Array(2 * (end - begin));
  let [mean, total] = [0, 0];
  for (let point = begin; point < end; point++) {
    mean = weight * mean + (1 - weight) * values[2 * point + 1];
    total = weight * total + (1 - weight);
    found[2 * (point - begin)] = values[2 * point];
    found[2 * (point - begin) + 1] = mean / total;
  }
  return found;
}

// Round numbers within a range, about so many.
export function marks([low, high], wanted, log) {
  if (log) {
    const found = [];
    const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
    const every = Math.max(1, Math.ceil((last - first) / wanted));
    for (let power = first; power <= last; power += every) found.push(10 ** power);
    return found.length > 1 ? found : [low * 1.1, high / 1.1];
  }
  const rough = (high - low) / wanted;
  if (!(rough > 0) || !Number.isFinite(rough)) return [];
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * size).find((one) => one >= rough) ?? 10 * size;
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high && found.length < 50; value += step) {
    found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  }
  return found;
}
