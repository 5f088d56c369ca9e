// The search of the built site, outside a browser: node search.js SITE QUERY...
// Prints one JSON object: for each query the pages it finds, best first.
// The site's own worker answers, the script that a reader's browser runs.
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const [site, ...queries] = process.argv.slice(2);
const folder = path.join(site, "assets", "javascripts", "workers");
const script = fs.readdirSync(folder).find((name) => /^search\..*\.js$/.test(name));
const index = JSON.parse(fs.readFileSync(path.join(site, "search", "search_index.json"), "utf8"));

let handle = null;
let answer = null;
const worker = {
  console,
  addEventListener: (kind, listener) => { if (kind === "message") handle = listener; },
  postMessage: (message) => answer(message),
  importScripts: () => {},
};
worker.self = worker;
worker.location = { href: "file:///" };
vm.runInNewContext(fs.readFileSync(path.join(folder, script), "utf8"), worker);

const ask = (message) => new Promise((resolve) => { answer = resolve; handle({ data: message }); });

(async () => {
  const SETUP = 0, QUERY = 2;
  await ask({ type: SETUP, data: { ...index, options: { suggest: false } } });
  const found = {};
  for (const query of queries) {
    const reply = await ask({ type: QUERY, data: query });
    found[query] = reply.data.items.map((sections) => sections[0].location.split("#")[0]);
  }
  console.log(JSON.stringify(found));
})();
