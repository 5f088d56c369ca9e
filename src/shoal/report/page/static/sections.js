// What stands around the curves: where the time goes, what the guard did, timelines and films.

import { makeFilm, readTimeline } from "/api.js";
import { count, make, number, percent, say } from "/words.js";

const ACTIVITIES = ["environment", "acting", "learning", "waiting", "transfer"];

export class TimeSplit {
  constructor() {
    this.rows = new Map();
    this.root = document.getElementById("time");
  }

  take(states) {
    const here = new Set(states.map((state) => state.run));
    for (const [run, row] of this.rows) {
      if (!here.has(run)) {
        row.element.remove();
        this.rows.delete(run);
      }
    }
    for (const state of states) {
      let row = this.rows.get(state.run);
      if (!row) {
        row = this.row(state);
        this.rows.set(state.run, row);
        this.root.append(row.element);
      }
      const told = ACTIVITIES.filter((name) => name in state.shares);
      row.element.hidden = told.length === 0;
      for (const name of ACTIVITIES) row.parts[name].style.width = `${100 * (state.shares[name] ?? 0)}%`;
      for (const name of ACTIVITIES) {
        row.labels[name].hidden = !(name in state.shares);
        say(row.texts[name], `${name} ${percent(state.shares[name] ?? 0)}`);
      }
    }
  }

  row(state) {
    const parts = Object.fromEntries(ACTIVITIES.map((name) => [name, make("span", { class: `part ${name}` })]));
    const texts = Object.fromEntries(ACTIVITIES.map((name) => [name, make("span")]));
    const labels = Object.fromEntries(ACTIVITIES.map((name) => {
      const dot = make("span", { class: `dot part ${name}`, "aria-hidden": "true" });
      return [name, make("span", { class: "label" }, dot, texts[name])];
    }));
    const words = make("p", {}, ...Object.values(labels));
    const bar = make("div", { class: "split", "aria-hidden": "true" }, ...Object.values(parts));
    const element = make("div", { class: "time" }, make("h3", {}, state.name), bar, words);
    return { element, parts, labels, texts };
  }
}

// What the guard did: a list for each run in which it acted.
export class GuardLog {
  constructor() {
    this.root = document.getElementById("guard");
    this.shown = "";
  }

  take(states) {
    const acted = states.filter((state) => state.guard.count > 0);
    document.getElementById("guard-section").hidden = acted.length === 0;
    const told = JSON.stringify(acted.map((state) => [state.name, state.guard]));
    if (told === this.shown) return;
    this.shown = told;
    this.root.replaceChildren(...acted.map((state) => this.list(state)));
  }

  list(state) {
    const { count: times, last } = state.guard;
    const items = [...last].reverse().map((one) => {
      const place = make("span", { class: "about-inline" }, `update ${count(one.update)}, step ${count(one.step)}: `);
      return make("li", {}, place, make("strong", {}, `${one.rule}, ${one.action}`), ` ${one.said}`);
    });
    const more = times > last.length ? `, the last ${last.length}` : "";
    const heading = make("h3", {}, `${state.name}: acted ${times === 1 ? "once" : `${count(times)} times`}${more}`);
    return make("div", {}, heading, make("ul", {}, ...items));
  }
}

const KIND_COLORS = { environment: "#15803d", acting: "#1f6fb4", learning: "#d97706", waiting: "#9aa3ae", transfer: "#7c3aed", publishing: "#b91c1c", saving: "#8a4b2a", evaluation: "#6b6500" };
const [LANE, LANE_LEFT] = [22, 110];

// The timeline of one run at a time, read on request: it may be large.
export class Timeline {
  constructor() {
    this.root = document.getElementById("timeline");
    this.buttons = make("div", { class: "tools" });
    this.picture = make("div");
    this.root.append(this.buttons, this.picture);
    this.named = "";
  }

  take(states) {
    const having = states.filter((state) => state.timeline);
    document.getElementById("timeline-section").hidden = having.length === 0;
    const named = having.map((state) => state.run).join();
    if (named === this.named) return;
    this.named = named;
    this.buttons.replaceChildren(...having.map((state) => {
      const button = make("button", { type: "button" }, `Show ${state.name}`);
      button.addEventListener("click", () => this.show(state));
      return button;
    }));
  }

  async show(state) {
    try {
      this.draw(state, await readTimeline(state.run));
    } catch (error) {
      this.picture.replaceChildren(make("p", { class: "trouble" }, error.message));
    }
  }

  draw(state, told) {
    const canvas = make("canvas", { role: "img" });
    const words = make("ul");
    this.picture.replaceChildren(make("p", {}, `${state.name}, updates ${count(told.first)} to ${count(told.last)}, ${number(told.elapsed_us / 1e6)} s`), canvas, words);
    const width = this.picture.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    const height = LANE * told.lanes.length + 20;
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const ink = getComputedStyle(document.body).color;
    const scale = (width - LANE_LEFT - 4) / Math.max(1, told.elapsed_us);
    told.lanes.forEach((lane, place) => {
      const top = place * LANE;
      context.fillStyle = ink;
      context.fillText(lane.name, 0, top + LANE / 2, LANE_LEFT - 8);
      for (let at = 0; at < lane.spans.length; at += 3) {
        const [kind, begun, lasted] = lane.spans.slice(at, at + 3);
        context.fillStyle = KIND_COLORS[told.kinds[kind]];
        context.fillRect(LANE_LEFT + begun * scale, top + 3, Math.max(0.5, lasted * scale), LANE - 6);
      }
    });
    context.fillStyle = ink;
    context.textAlign = "right";
    context.fillText(`${number(told.elapsed_us / 1e6)} s`, width - 4, height - 9);
    const said = told.lanes.map((lane) => {
      const shares = Object.entries(lane.shares).map(([name, share]) => `${name} ${percent(share)}`);
      return `${lane.name}: ${shares.join(" · ")}`;
    });
    canvas.setAttribute("aria-label", `timeline of ${state.name}; the list below says it in words`);
    words.replaceChildren(...said.map((line) => make("li", {}, line)));
    if (told.left_out) words.append(make("li", {}, `${count(told.left_out)} more processes are in the file`));
  }
}

// The films of the runs that are shown, the newest of each; a new one is made on request.
export class Films {
  constructor() {
    this.root = document.getElementById("films");
    this.rows = new Map();
  }

  take(states) {
    const shown = states.filter((state) => state.films);
    document.getElementById("films-section").hidden = shown.length === 0;
    const here = new Set(shown.map((state) => state.run));
    for (const [run, row] of this.rows) {
      if (!here.has(run)) {
        row.element.remove();
        this.rows.delete(run);
      }
    }
    for (const state of shown) this.fill(state);
  }

  fill(state) {
    let row = this.rows.get(state.run);
    if (!row) {
      row = { button: make("button", { type: "button" }, "Film the newest policy"), said: make("p", { role: "status" }), list: make("div", { class: "grid" }), told: "" };
      row.button.setAttribute("aria-label", `Film the newest policy of ${state.name}`);
      row.button.addEventListener("click", () => this.film(state, row));
      row.element = make("div", { class: "films" }, make("h3", {}, state.name), " ", row.button, row.said, row.list);
      this.rows.set(state.run, row);
      this.root.append(row.element);
    }
    row.button.disabled = state.filming === "making" || state.state === "deleted";
    if (state.filming || row.said.textContent === "making…") say(row.said, state.filming === "making" ? "making…" : state.filming);
    const told = JSON.stringify(state.films);
    if (told === row.told) return;
    row.told = told;
    row.list.replaceChildren(...state.films.slice(0, 3).map((film) => this.figure(state, film)));
  }

  figure(state, film) {
    const address = `/film?run=${state.run}&name=${encodeURIComponent(film.name)}&of=${film.written_s}`;
    const name = `${film.name} of ${state.name}`;
    const picture = film.name.toLowerCase().endsWith(".gif")
      ? make("img", { src: address, alt: name, loading: "lazy" })
      : make("video", { src: address, controls: true, loop: true, muted: true, playsinline: true, preload: "metadata", "aria-label": name });
    return make("figure", { class: "film" }, make("figcaption", {}, film.name), picture);
  }

  async film(state, row) {
    row.button.disabled = true;
    say(row.said, "making…");
    try {
      await makeFilm(state.run);
    } catch (error) {
      say(row.said, error.message);
    }
  }
}
