// The page: asks where the runs stand every second while somebody looks, and draws what has changed.

import { readCurves, readState, Refused } from "/api.js";
import { Chart, color, dark, place } from "/chart.js";
import { Curves } from "/curves.js";
import { MOST_SHOWN, RunTable } from "/runs.js";
import { Films, GuardLog, Timeline, TimeSplit } from "/sections.js";
import { make, number, say, short } from "/words.js";

const EVERY_MS = 1000;
const SETTLED_MS = 150;
const SLOW_MS = 30;
const MOST_CHARTS = 300;
const FIRST_CHARTS = 6;
const FIRST = ["episode", "eval", "loss"];
const NAMES = { episode: "Episodes", eval: "Greedy evaluations", loss: "Losses", train: "Training", speed: "Speed", time: "Clocks", info: "Numbers of the environment", groups: "Groups", population: "Population", learner: "Learner" };
const NO_CHART = ["update", "version"];

// The token stays out of the history and of pictures of the screen; the cookie holds it from here on.
if (location.search) history.replaceState(null, "", location.pathname);

const curves = new Curves();
const charts = new Map();
const groups = new Map();
const versions = new Map();
const options = { view: null, ends: null, smooth: 0, log: false, cursor: null };
const table = new RunTable(() => { remake(); look(); });
const sections = [new TimeSplit(), new GuardLog(), new Timeline(), new Films()];
const byId = (id) => document.getElementById(id);
let [asking, again, waiting, frame, settled] = [false, false, 0, 0, 0];
const due = new Set(); // charts that are to be drawn
let [most, drawnAt, held] = [100, 0, null]; // `held`: the chart that was taken last

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) charts.get(entry.target.dataset.key).visible = entry.isIntersecting;
  redraw();
  if (asking) again = true;
  else look();
}, { rootMargin: "40px" });

let asked = 0; // for how many pixels curves were asked for
const sized = new ResizeObserver(() => {
  if (Math.abs(chartWidth() - asked) > asked / 4) {
    asked = chartWidth();
    curves.forget();
    look();
  }
  redraw();
});

async function look() {
  clearTimeout(waiting);
  if (asking) {
    again = true;
    return;
  }
  [asking, again] = [true, false];
  try {
    await refresh();
    say(byId("connection"), "live");
    byId("connection").className = "";
  } catch (error) {
    const why = error instanceof Refused ? error.message : "the server does not answer; `shoal watch` may have ended";
    say(byId("connection"), why);
    byId("connection").className = "trouble";
  }
  asking = false;
  clearTimeout(waiting);
  waiting = setTimeout(look, again ? 0 : document.hidden ? 10 * EVERY_MS : EVERY_MS);
}

async function refresh() {
  const first = table.states.length === 0;
  let said = await readState(table.numbers(), first ? MOST_SHOWN : 0);
  if (table.take(said.runs, said.left_out) && !first) {
    said = await readState(table.numbers());
    table.take(said.runs, said.left_out);
  }
  for (const state of said.runs) {
    if (!state.keys) continue;
    versions.set(state.run, { generation: state.generation, lines: state.lines, keys: new Set(state.keys) });
  }
  const shown = new Set(table.numbers());
  for (const section of sections) section.take(said.runs.filter((state) => shown.has(state.run)));
  remake();
  await fill();
  for (const chart of visible()) chart.describe(shownOn(chart));
}

function visible() {
  return [...charts.values()].filter((chart) => chart.visible);
}

// Asks for what the charts in sight lack.
async function fill() {
  const runs = table.numbers();
  const keys = visible().map((chart) => chart.key);
  const wanted = curves.wishes(keys, runs, versions);
  if (wanted.length) {
    const axis = curves.axis;
    for (let begin = 0; begin < wanted.length; begin += 1000) {
      const asked = wanted.slice(begin, begin + 1000);
      const heads = await readCurves({ axis, width: chartWidth(), curves: asked });
      if (axis !== curves.axis) return;
      for (const head of heads) {
        const curve = curves.of(head.key, head.run);
        curve.take(head);
        curve.lines = versions.get(head.run)?.lines ?? -1;
      }
    }
    options.ends = curves.ends(runs);
    redraw();
    if (options.view) settle();
  }
}

// A moment after the last movement, asks for the part that is shown in as many points as fit.
function settle() {
  clearTimeout(settled);
  settled = setTimeout(detail, SETTLED_MS);
}

async function detail() {
  const view = options.view;
  if (!view) return;
  const wanted = curves.details(visible().map((chart) => chart.key), table.numbers(), view);
  if (!wanted.length) return;
  const axis = curves.axis;
  try {
    // Three times the part is asked for, so three times the points.
    const heads = await readCurves({ axis, width: 3 * chartWidth(), curves: wanted.slice(0, 2000) });
    if (axis !== curves.axis) return;
    heads.forEach((head) => {
      const asked = wanted.find((one) => one.run === head.run && one.key === head.key);
      curves.of(head.key, head.run).takeDetail(head, asked.from, asked.to);
    });
    redraw();
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
    look(); // which says what is wrong
  }
}

function chartWidth() {
  const first = [...charts.values()].find((chart) => chart.figure.clientWidth);
  return first ? Math.max(64, first.figure.clientWidth - 60) : 400;
}

// Makes charts for keys that have none, and hides what is filtered out.
function remake() {
  const filter = byId("filter").value.trim().toLowerCase();
  const keys = new Set();
  for (const run of table.numbers()) {
    for (const key of versions.get(run)?.keys ?? []) keys.add(key);
  }
  const wanted = [...keys].filter((key) => !NO_CHART.includes(key) && key.toLowerCase().includes(filter));
  wanted.sort((a, b) => rank(a) - rank(b));
  const shown = new Set(wanted.slice(0, MOST_CHARTS));
  for (const [key, chart] of charts) chart.figure.hidden = !shown.has(key);
  for (const key of shown) if (!charts.has(key)) addChart(key);
  for (const group of groups.values()) {
    group.hidden = ![...group.lastChild.children].some((figure) => !figure.hidden);
  }
}

function rank(key) {
  if (key === "episode/return") return -1;
  const place = FIRST.indexOf(key.split("/")[0]);
  return place < 0 ? FIRST.length : place;
}

function addChart(key) {
  const name = key.split("/")[0];
  let group = groups.get(name);
  if (!group) {
    const heading = make("h3", {}, NAMES[name] ?? name);
    group = make("details", {}, make("summary", {}, heading), make("div", { class: "grid" }));
    group.open = name !== "time";
    groups.set(name, group);
    byId("charts").append(group);
  }
  const chart = new Chart(key);
  chart.visible = charts.size < FIRST_CHARTS; // until the browser says so: its word comes after the first painting
  if (key === "episode/return") chart.figure.classList.add("first");
  chart.figure.dataset.key = key;
  charts.set(key, chart);
  group.lastChild.append(chart.figure);
  listen(chart);
  seen.observe(chart.figure);
  sized.observe(chart.figure);
}

// Draws the charts in sight before the browser paints next.
function redraw() {
  for (const chart of visible()) due.add(chart);
  if (!frame && due.size) frame = requestAnimationFrame(draw);
}

// Draws what is due; where the frame before took long, half as many charts as then, and the others in the next one.
function draw(now) {
  frame = 0;
  const passed = now - drawnAt;
  if (passed > SLOW_MS && passed < 500) most = Math.max(1, Math.min(most, due.size) >> 1);
  else if (passed < 500) most += 1;
  drawnAt = now;
  const drawn = [...due].sort((a, b) => (b === held) - (a === held)).slice(0, most);
  const widths = drawn.map((chart) => chart.figure.clientWidth);
  drawn.forEach((chart, at) => {
    due.delete(chart);
    if (!widths[at]) return;
    chart.resize(widths[at]);
    const shown = shownOn(chart);
    chart.draw(shown, options);
    if (shown.length && !performance.getEntriesByName("curves").length) performance.mark("curves");
  });
  if (due.size) frame = requestAnimationFrame(draw);
}

// The curves of a chart that have points.
function shownOn(chart) {
  return table.numbers()
    .map((run) => ({ run, place: table.place(run), name: table.name(run), curve: curves.of(chart.key, run) }))
    .filter((one) => one.curve.points);
}

function show(view) {
  const ends = options.ends;
  if (!ends) return;
  if (view) {
    const wide = Math.min(view[1] - view[0], ends[1] - ends[0]);
    const begin = Math.min(Math.max(view[0], ends[0]), ends[1] - wide);
    options.view = wide >= ends[1] - ends[0] ? null : [begin, begin + wide];
  } else options.view = null;
  redraw();
  settle();
}

function move(share) {
  const view = options.view ?? options.ends;
  if (!view) return;
  const by = share * (view[1] - view[0]);
  show([view[0] + by, view[1] + by]);
}

function zoom(times, around = null) {
  const view = options.view ?? options.ends;
  if (!view) return;
  const middle = around ?? (view[0] + view[1]) / 2;
  const smallest = (options.ends[1] - options.ends[0]) / 1e6;
  if ((view[1] - view[0]) * times < smallest) return;
  show([middle - (middle - view[0]) * times, middle + (view[1] - middle) * times]);
}

const KEYS = { ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: () => show(null), Escape: () => show(null) };

function listen(chart) {
  const canvas = chart.canvas;
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    held = chart;
    grip = { x: event.clientX, view: options.view ?? options.ends };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (grip?.view) {
      const wide = grip.view[1] - grip.view[0];
      const by = ((grip.x - event.clientX) / chart.inner) * wide;
      options.cursor = null;
      show([grip.view[0] + by, grip.view[1] + by]);
      return;
    }
    options.cursor = chart.at(event.offsetX);
    tell(chart, event);
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (grip = null));
  canvas.addEventListener("pointerleave", () => {
    options.cursor = null;
    byId("tip").hidden = true;
    redraw();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, chart.at(event.offsetX));
  }, { passive: false });
  canvas.addEventListener("dblclick", () => show(null));
  canvas.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.metaKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    act();
  });
}

// The values of all runs below the pointer.
function tell(chart, event) {
  const tip = byId("tip");
  tip.hidden = options.cursor === null;
  if (tip.hidden) return;
  const lines = [make("div", {}, short(options.cursor))];
  for (const run of table.numbers()) {
    const [values, points] = curves.of(chart.key, run).shown(options.view);
    if (!points) continue;
    const at = Math.min(points - 1, place(values, points, options.cursor));
    const swatch = make("span", { class: "dot" });
    swatch.style.background = color(table.place(run));
    lines.push(make("div", {}, swatch, `${number(values[2 * at + 1])}  ${table.name(run)}`));
  }
  tip.replaceChildren(...lines.slice(0, 13));
  const right = event.clientX > innerWidth / 2;
  tip.style.left = right ? "auto" : `${event.clientX + 14}px`;
  tip.style.right = right ? `${innerWidth - event.clientX + 14}px` : "auto";
  tip.style.top = `${event.clientY + 14}px`;
}

byId("axis").addEventListener("change", (event) => {
  curves.axis = event.target.value;
  curves.clear();
  Object.assign(options, { view: null, ends: null });
  look();
});
byId("filter").addEventListener("input", () => { remake(); redraw(); });
byId("smooth").addEventListener("input", (event) => { options.smooth = Number(event.target.value); redraw(); });
byId("log").addEventListener("change", (event) => { options.log = event.target.checked; redraw(); });
byId("left").addEventListener("click", () => move(-0.2));
byId("right").addEventListener("click", () => move(0.2));
byId("closer").addEventListener("click", () => zoom(0.6));
byId("farther").addEventListener("click", () => zoom(1 / 0.6));
byId("all").addEventListener("click", () => show(null));
dark.addEventListener("change", redraw);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
