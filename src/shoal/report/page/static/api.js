// Requests to the server that sent this page.

export class Refused extends Error {}

async function ask(address, options = {}) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  if (answer.ok) return answer;
  const said = (await answer.text()).trim();
  throw new Refused(said || `${answer.status}`);
}

// Where all runs stand, and more of some of them: those of these numbers, and the newest.
export async function readState(runs, newest = 0) {
  const query = runs.map((run) => `run=${run}`);
  if (newest) query.push(`newest=${newest}`);
  return (await ask(`/api/state?${query.join("&")}`)).json();
}

export async function readCurves(asked) {
  const answer = await ask("/api/curves", { method: "POST", body: JSON.stringify(asked) });
  const data = await answer.arrayBuffer();
  const length = new DataView(data).getUint32(0, true);
  const heads = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  for (const head of heads) {
    head.values = new Float64Array(data, at, 2 * head.points);
    at += 16 * head.points;
  }
  return heads;
}

export async function readTimeline(run) {
  return (await ask(`/api/timeline?run=${run}`)).json();
}

export async function makeFilm(run) {
  return (await ask("/api/film", { method: "POST", body: JSON.stringify({ run }) })).json();
}

export async function giveOrder(run, order) {
  return (await ask("/api/order", { method: "POST", body: JSON.stringify({ run, order }) })).json();
}
