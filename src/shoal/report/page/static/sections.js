// What stands below the curves: where the time goes.

import { make, percent, say } from "/words.js";

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
      say(row.words, told.map((name) => `${name} ${percent(state.shares[name])}`).join(" · "));
    }
  }

  row(state) {
    const parts = Object.fromEntries(ACTIVITIES.map((name) => [name, make("span", { class: `part ${name}` })]));
    const words = make("p");
    const bar = make("div", { class: "split", "aria-hidden": "true" }, ...Object.values(parts));
    const element = make("div", { class: "time" }, make("h3", {}, state.name), bar, words);
    return { element, parts, words };
  }
}
