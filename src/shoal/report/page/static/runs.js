// The table of runs: which are shown, and where each stands.

import { giveOrder } from "/api.js";
import { clock, count, decimal, make, say } from "/words.js";

const HEAD = ["Run", "State", "Progress", "Left", "Return", "Greedy", "Steps/s", "Cores"];
const WORDS = { pause: "Pause", continue: "Continue", stop: "Stop" };
const SURE_MS = 4000;
export const MOST_SHOWN = 10; // at the start

// A return, and what an episode cost where its steps have a cost.
function withCost(mean, cost) {
  return cost === null ? decimal(mean) : `${decimal(mean)}, cost ${decimal(cost)}`;
}

export class RunTable {
  constructor(changed) {
    this.changed = changed;
    this.shown = new Set();
    this.known = new Set();
    this.rows = new Map();
    this.states = [];
    document.getElementById("runs-head").append(...HEAD.map((name) => make("th", { scope: "col" }, name)));
  }

  // The numbers of the runs that are shown, in the order of the table.
  numbers() {
    return this.states.map((state) => state.run).filter((run) => this.shown.has(run));
  }

  take(states, leftOut) {
    const first = this.known.size === 0;
    const fresh = states.filter((state) => !this.known.has(state.run));
    const begun = first ? fresh.slice(-MOST_SHOWN) : fresh;
    for (const state of fresh) this.known.add(state.run);
    for (const state of begun) {
      if (this.shown.size < MOST_SHOWN) this.shown.add(state.run);
    }
    this.states = states;
    const body = document.getElementById("runs");
    const here = new Set(states.map((state) => state.run));
    for (const [run, row] of this.rows) {
      if (!here.has(run)) {
        row.element.remove();
        this.rows.delete(run);
        this.shown.delete(run);
      }
    }
    states.forEach((state, place) => {
      let row = this.rows.get(state.run);
      if (!row) {
        row = this.row(state, place);
        this.rows.set(state.run, row);
        body.append(row.element);
      }
      this.fill(row, state);
    });
    const note = document.getElementById("left-out");
    note.hidden = !leftOut;
    say(note, leftOut ? `${count(leftOut)} older runs are not listed; name a smaller folder to see them.` : "");
    return begun.length > 0;
  }

  place(run) {
    return this.rows.get(run)?.place ?? 0;
  }

  name(run) {
    return this.rows.get(run)?.name ?? "";
  }

  row(state, place) {
    const box = make("input", { type: "checkbox" });
    box.checked = this.shown.has(state.run);
    box.addEventListener("change", () => {
      if (box.checked) this.shown.add(state.run);
      else this.shown.delete(state.run);
      this.changed();
    });
    const swatch = make("span", { class: `swatch c${place % 10} d${Math.floor(place / 10) % 4}`, "aria-hidden": "true" });
    const about = make("span", { class: "about" });
    const label = make("label", {}, box, swatch, make("span", { class: "name" }, state.name));
    const problems = make("span", { class: "problem" });
    const reason = make("span", { class: "about reason" });
    const cells = HEAD.slice(1).map(() => make("td"));
    const bar = make("progress", { max: "1" });
    bar.setAttribute("aria-label", `progress of ${state.name}`);
    const progress = make("span");
    cells[1].append(bar, progress);
    const orders = make("span", { class: "orders" });
    const stateText = make("span");
    const asked = make("span", { class: "asked", role: "status" });
    cells[0].append(stateText, orders, asked);
    const element = make("tr", {}, make("th", { scope: "row" }, label, about, reason, problems), ...cells);
    return { element, place, name: state.name, about, reason, problems, cells, bar, progress, stateText, orders, asked, offered: "" };
  }

  fill(row, state) {
    const seed = state.seed === null ? "" : `, seed ${state.seed}`;
    const cost = state.cost ? `, ${state.cost}` : "";
    say(row.about, `${state.algo} on ${state.env}${seed}${state.device ? `, ${state.device}` : ""}${cost}`);
    say(row.problems, state.problems.join(" "));
    say(row.stateText, state.state);
    row.stateText.className = `state ${["running", "finished", "failed"].includes(state.state) ? state.state : "other"}`;
    say(row.reason, state.reason && state.state !== "finished" ? state.reason : "");
    const done = state.total ? Math.min(1, (state.steps ?? 0) / state.total) : null;
    row.bar.hidden = done === null;
    if (done !== null) row.bar.value = done;
    say(row.progress, `${count(state.steps)}${state.total ? ` of ${count(state.total)}` : ""} ${state.counted}`);
    const cells = row.cells.slice(2);
    const texts = [
      state.state === "running" ? clock(state.left_s) : "–",
      withCost(state.mean_return, state.mean_cost),
      withCost(state.greedy_return, state.greedy_cost),
      count(state.speed),
      state.cpu_cores === null ? "–" : `${state.cpu_cores.toFixed(1)} (${count(state.processes)} proc.)`,
    ];
    cells.forEach((cell, place) => say(cell, texts[place]));
    this.offer(row, state);
  }

  // Buttons for what a run can be asked to do; to stop takes a second press, as nobody can take it back.
  offer(row, state) {
    say(row.asked, state.asked);
    const offered = state.orders.join();
    if (row.offered === offered) return;
    row.offered = offered;
    row.orders.replaceChildren(...state.orders.map((order) => {
      const button = make("button", { type: "button", "aria-label": `${WORDS[order]} ${state.name}` }, WORDS[order]);
      let sure = order !== "stop";
      button.addEventListener("click", async () => {
        if (!sure) {
          sure = true;
          button.textContent = "Stop now?";
          button.setAttribute("aria-label", `Stop ${state.name} now? Press again.`);
          setTimeout(() => {
            sure = false;
            button.textContent = WORDS.stop;
            button.setAttribute("aria-label", `${WORDS.stop} ${state.name}`);
          }, SURE_MS);
          return;
        }
        button.disabled = true;
        try {
          say(row.asked, (await giveOrder(state.run, order)).said);
        } catch (error) {
          say(row.asked, error.message);
        }
        button.disabled = false;
        this.changed();
      });
      return button;
    }));
  }
}
