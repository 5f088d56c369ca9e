// The points of curves: what the server has sent, and what is still to be asked for.

const DETAIL = 1; // a part that is zoomed into is asked for with so much of itself on each side

// One number of one run: [x, y, x, y, ...] over the whole axis, and in more points over the part that is shown.
export class Curve {
  constructor() {
    this.generation = -1;
    this.level = -1;
    this.values = new Float64Array(0);
    this.points = 0;
    this.detail = null;
    this.lines = -1;
  }

  // What is asked for to have all points up to now.
  wish() {
    const perBucket = this.level > 0 ? 2 : 1;
    const buckets = Math.floor(this.points / perBucket);
    return { generation: this.generation, level: this.level, since: Math.max(0, buckets - 1) };
  }

  take(head) {
    const perBucket = head.level > 0 ? 2 : 1;
    const kept = head.since * perBucket;
    const total = kept + head.points;
    if (2 * total > this.values.length) {
      const larger = new Float64Array(4 * total);
      larger.set(this.values.subarray(0, 2 * kept));
      this.values = larger;
    }
    this.values.set(head.values, 2 * kept);
    this.points = total;
    if (head.generation !== this.generation) this.detail = null;
    this.generation = head.generation;
    this.level = head.level;
  }

  takeDetail(head, from, to) {
    this.detail = { from, to, level: head.level, values: head.values, points: head.points };
  }

  // The points that show a part of the axis best: [values, number, level].
  shown(view) {
    const detail = this.detail;
    if (view && detail && detail.level < this.level && detail.from <= view[0] && detail.to >= view[1]) {
      return [detail.values, detail.points, detail.level];
    }
    return [this.values, this.points, this.level];
  }

  last() {
    return this.points ? this.values[2 * this.points - 1] : null;
  }
}

export class Curves {
  constructor() {
    this.axis = "step";
    this.byKey = new Map();
  }

  clear() {
    this.byKey.clear();
  }

  // Has every curve asked for again, in as many points as fit now.
  forget() {
    for (const runs of this.byKey.values()) for (const curve of runs.values()) curve.lines = -1;
  }

  of(key, run) {
    let runs = this.byKey.get(key);
    if (!runs) this.byKey.set(key, (runs = new Map()));
    let curve = runs.get(run);
    if (!curve) runs.set(run, (curve = new Curve()));
    return curve;
  }

  // What to ask for so that these keys of these runs are complete; `versions` says by run what there is.
  wishes(keys, runs, versions) {
    const wanted = [];
    for (const key of keys) {
      for (const run of runs) {
        const version = versions.get(run);
        if (!version || !version.keys.has(key)) continue;
        const curve = this.of(key, run);
        if (curve.generation === version.generation && curve.lines === version.lines) continue;
        wanted.push({ run, key, ...curve.wish() });
      }
    }
    return wanted;
  }

  // What to ask for so that a part of the axis is shown in as many points as fit.
  details(keys, runs, view) {
    const wide = view[1] - view[0];
    const [from, to] = [view[0] - DETAIL * wide, view[1] + DETAIL * wide];
    const wanted = [];
    for (const key of keys) {
      for (const run of runs) {
        const curve = this.byKey.get(key)?.get(run);
        if (!curve || curve.level <= 0) continue;
        wanted.push({ run, key, from, to });
      }
    }
    return wanted;
  }

  // The ends of the axis over all curves of some runs.
  ends(runs) {
    let [low, high] = [Infinity, -Infinity];
    for (const byRun of this.byKey.values()) {
      for (const run of runs) {
        const curve = byRun.get(run);
        if (!curve?.points) continue;
        low = Math.min(low, curve.values[0]);
        high = Math.max(high, curve.values[2 * curve.points - 2]);
      }
    }
    return low <= high ? [low, high] : null;
  }
}
