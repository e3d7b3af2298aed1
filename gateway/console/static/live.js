// Keeps the page true: follows the station's stream, puts in what changed, and says loudly when it can't.
// Other scripts hear of it through events of the document: "tocsin:summary", "tocsin:changed", "tocsin:beat",
// "tocsin:stale" and "tocsin:alive"; "tocsin:card" tells it of a card that answered a step.

const STALE_MS = 4000; // the station beats every 2 s
const AGAIN_MS = 1000;
const page = document.body.dataset;
const words = JSON.parse(page.words);
const indicator = document.getElementById("live");
const banner = document.getElementById("stale");
const icon = document.querySelector("link[rel=icon]");
const heard = new Map();
const started = performance.now();

let source = null;
let since = page.stamp;
let opened = started;
let beat = null; // when the last one came
let state = "connecting";
let mark = page.mark;
const numbers = (text) => new Set(text.split(" ").filter(Boolean).map(Number));
let known = numbers(page.raised);
let knownTests = numbers(page.raisedTests);

const tell = (name, detail) => document.dispatchEvent(new CustomEvent(`tocsin:${name}`, { detail }));

function show(next) {
  if (state === next) return;
  const before = state;
  state = next;
  indicator.dataset.state = next;
  indicator.textContent = words[{ on: "live.on", off: "live.off", connecting: "live.connecting" }[next]];
  document.documentElement.classList.toggle("not-live", next === "off");
  banner.hidden = next !== "off";
  if (before === "off" && next === "on") announce(words["live.back"]);
  if (next === "off") tell("stale");
  if (next === "on") tell("alive");
}

function announce(text) {
  document.getElementById("announce").textContent = text;
}

function span(ms) {
  const [unit, size] = ms < 120e3 ? ["s", 1e3] : ms < 7200e3 ? ["min", 60e3] : ["h", 3600e3];
  return words[`span.${unit}`].replace("{n}", Math.floor(ms / size));
}

function watch() {
  const now = performance.now();
  const silent = now - (beat ?? started);
  if (silent < STALE_MS) return;
  show("off");
  document.getElementById("stale-since").textContent =
    beat === null ? words["live.never"] : words["live.last"].replace("{age}", span(silent));
  if (source && now - opened > STALE_MS) connect(); // open, or trying, but silent
}

function connect() {
  source?.close();
  opened = performance.now();
  const query = new URLSearchParams({ view: page.view, lang: document.documentElement.lang, number: page.number });
  if (!document.getElementById("filter")?.value || since !== page.stamp) query.set("since", since);
  const mine = new EventSource(`/live?${query}`);
  source = mine;
  const on = (name, take) =>
    mine.addEventListener(name, (event) => {
      if (mine !== source) return;
      take(JSON.parse(event.data));
      if (event.lastEventId) since = event.lastEventId;
    });
  on("beat", ({ now_ms }) => {
    beat = performance.now();
    tell("beat", now_ms);
    show("on");
  });
  on("silent", () => {
    if (beat !== null) beat = Math.min(beat, performance.now() - STALE_MS);
    watch();
  });
  on("list", list);
  on("parts", parts);
  on("summary", summary);
  on("heard", (times) => {
    for (const [id, ms] of Object.entries(times)) heard.set(id, ms);
    fillHeard();
  });
  on("ended", ({ why }) => {
    mine.close();
    source = null;
    if (why === "signed_out") signedOut();
    else {
      beat = -STALE_MS;
      show("off");
      banner.firstElementChild.textContent = words["live.elsewhere"];
      document.getElementById("stale-since").textContent = "";
      clearInterval(watching);
    }
  });
  mine.onerror = () => {
    if (mine !== source) return;
    mine.close();
    source = null;
    setTimeout(again, AGAIN_MS);
  };
}

async function again() {
  try {
    const answer = await fetch("/api/v1/session", { signal: AbortSignal.timeout(3000) });
    if (answer.status === 401) return signedOut();
  } catch {
    // the station does not answer: the stream is tried all the same
  }
  if (source === null) connect();
}

function signedOut() {
  const to = encodeURIComponent(location.pathname + location.search);
  location.assign(`/sign-in?ended=true&to=${to}`);
}

function made(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

// Puts `fresh` in the place of `old` and leaves the keyboard where it was.
function swap(old, fresh) {
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const step = active?.dataset.step;
  if (old.classList.contains("selected")) fresh.classList.add("selected");
  old.replaceWith(fresh);
  if (!active) return;
  const next = active === old ? fresh : step && fresh.querySelector(`[data-step="${step}"]`);
  (next ?? fresh).focus({ preventScroll: true });
}

function list({ order, items }) {
  const holder = document.querySelector("[data-list]");
  if (!holder) return;
  const here = new Map([...holder.children].map((child) => [child.dataset.key, child]));
  for (const [key, html] of Object.entries(items)) {
    const fresh = made(html);
    const old = here.get(key);
    if (old) swap(old, fresh);
    else if (order) fresh.classList.add("new");
    here.set(key, fresh);
  }
  if (order) {
    const wanted = new Set(order);
    for (const [key, child] of here) if (!wanted.has(key)) child.remove();
    order.forEach((key, index) => {
      const child = here.get(key);
      if (child && holder.children[index] !== child) holder.insertBefore(child, holder.children[index] ?? null);
    });
  }
  fillHeard();
  tell("changed");
}

function parts(told) {
  for (const [name, html] of Object.entries(told)) {
    const holder = document.querySelector(`[data-part="${name}"]`);
    if (!holder || holder.dataset.html === html) continue;
    const active = holder.contains(document.activeElement) ? document.activeElement : null;
    const kept = new Map([...holder.querySelectorAll("textarea[id]")].map((field) => [field.id, field]));
    const caret = active?.selectionStart;
    holder.innerHTML = html;
    holder.dataset.html = html;
    for (const [id, field] of kept) document.getElementById(id)?.replaceWith(field); // what is being typed stays
    const next = kept.get(active?.id) ?? (active?.dataset.step && holder.querySelector(`[data-step="${active.dataset.step}"]`));
    next?.focus({ preventScroll: true });
    if (next && caret !== undefined && next.setSelectionRange) next.setSelectionRange(caret, caret);
  }
  tell("changed");
}

function summary(told) {
  parts(told.parts);
  for (const [name, count] of [["open", told.open], ["tests", told.tests], ["troubled", told.troubled]]) {
    const badge = document.querySelector(`[data-count="${name}"]`);
    badge.textContent = count;
    badge.hidden = !count;
  }
  icon.href = told.raised.length ? icon.dataset.alarm : icon.dataset.calm;
  document.title = told.mark + document.title.slice(mark.length);
  mark = told.mark;
  const fresh = told.raised.filter(({ id }) => !known.has(id));
  if (fresh.length) announce(fresh.map(({ say }) => say).join(" "));
  known = new Set(told.raised.map(({ id }) => id));
  const tests = told.raised_tests.filter(({ id }) => !knownTests.has(id));
  if (tests.length) document.getElementById("announce-test").textContent = tests.map(({ say }) => say).join(" ");
  knownTests = new Set(told.raised_tests.map(({ id }) => id));
  tell("summary", told);
}

function fillHeard() {
  for (const [id, ms] of heard) {
    const cell = document.querySelector(`tr[data-key="${CSS.escape(id)}"] [data-heard]`);
    if (!cell || ms === null) continue;
    const ago = cell.querySelector("[data-ago]") ?? cell.replaceChildren(made('<span class="ago"></span>')) ?? cell.firstElementChild;
    ago.dataset.ago = ms;
  }
  tell("changed");
}

for (const ago of document.querySelectorAll("tr[data-child] [data-heard] [data-ago]")) {
  heard.set(ago.closest("tr").dataset.key, Number(ago.dataset.ago));
}
document.addEventListener("tocsin:card", ({ detail: { number, html } }) => {
  const here = document.querySelector(`.cards > [data-key="${number}"]`);
  if (here && state !== "on") list({ order: null, items: { [number]: html } }); // a live page gets it, or a newer one, anyway
});
const watching = setInterval(watch, 250);
document.addEventListener("visibilitychange", watch);
addEventListener("pageshow", (event) => event.persisted && location.reload()); // a page out of the browser's memory is old
connect();
