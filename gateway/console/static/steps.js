// What an operator does: steps by button or by key, the closing dialog, the choice of a card, and the answer to a step.

const ANSWER_MS = 8000; // no answer within this: not sent
const SETTLE_MS = 800; // keys rest when another alarm moved under the operator's hand
const STEP_OF_KEY = { a: "acknowledged", r: "responding", o: "on_scene", c: "closed" };
const DIRECTION_OF_KEY = { arrowdown: 1, j: 1, arrowup: -1, k: -1 };
const words = JSON.parse(document.body.dataset.words);
const csrf = document.body.dataset.csrf;
const closing = document.getElementById("close-dialog");
const help = document.getElementById("help-dialog");
const answer = document.getElementById("answer");
const cards = document.querySelector(".cards");

let chosen = null;
let met = new Set(); // alarms that were on the page before
let settled = 0;
let hiding = 0;

const all = () => [...(cards?.children ?? [])];
const current = () => (cards ? all().find((card) => card.dataset.incident === chosen) : document.querySelector(".card.single"));

function choose(card, look = false) {
  chosen = card?.dataset.incident ?? null;
  for (const other of all()) {
    other.classList.toggle("selected", other === card);
    if (other === card) other.setAttribute("aria-current", "true");
    else other.removeAttribute("aria-current");
  }
  if (card && look) {
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }
}

// An alarm that arrives never takes the place of the one that is chosen, unless that is a test.
function keepChosen() {
  if (!cards) return;
  const alarms = all().filter((other) => !("test" in other.dataset));
  const fresh = alarms.find((alarm) => !met.has(alarm.dataset.incident));
  met = new Set(alarms.map((alarm) => alarm.dataset.incident));
  let card = current();
  if (fresh && card && "test" in card.dataset) card = undefined;
  if (!card && chosen !== null) settled = performance.now() + SETTLE_MS;
  choose(card ?? all()[0]);
}

function say(text, trouble) {
  clearTimeout(hiding);
  document.getElementById("answer-text").textContent = text;
  answer.classList.toggle("fault", trouble);
  answer.hidden = false;
  if (!trouble) hiding = setTimeout(() => (answer.hidden = true), 6000);
}

async function send(number, state, note = "", outcome = "") {
  const buttons = document.querySelectorAll(`[data-incident="${number}"] [data-step], .steps.tall [data-step]`);
  for (const button of buttons) button.disabled = true;
  try {
    const reply = await fetch(`/incidents/${number}/steps`, {
      method: "POST",
      headers: { Accept: "application/json", "X-CSRF-Token": csrf },
      body: new URLSearchParams({ state, note, outcome }),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const told = await reply.json();
    say(told.message ?? told.error.message, !reply.ok);
    if (told.card) document.dispatchEvent(new CustomEvent("tocsin:card", { detail: { number, html: told.card } }));
    return reply.ok;
  } catch {
    say(words["answer.unsent"], true);
    return false;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function close(number, card) {
  closing.dataset.number = number;
  closing.querySelector("form").reset();
  closing.querySelector("[name=note]").value = document.getElementById("step-note")?.value ?? "";
  document.getElementById("close-mistake").textContent = "";
  document.getElementById("close-where").textContent = card?.dataset.where ?? "";
  closing.showModal();
  const outcome = closing.querySelector(card && "test" in card.dataset ? "[name=outcome][value=test]" : "[name=outcome]");
  outcome.checked = card !== null && card !== undefined && "test" in card.dataset;
  outcome.focus();
}

async function step(number, state, card) {
  if (state === "closed") return close(number, card);
  const note = document.getElementById("step-note");
  if ((await send(number, state, note?.value)) && note) note.value = "";
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const state = event.submitter?.dataset.step;
  if (state) {
    event.preventDefault();
    const number = form.getAttribute("action").split("/")[2];
    await step(number, state, form.closest(".card") ?? current());
  }
});

closing.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = new FormData(event.target);
  if (await send(closing.dataset.number, "closed", told.get("note"), told.get("outcome"))) {
    closing.close();
    const note = document.getElementById("step-note");
    if (note) note.value = "";
  } else {
    document.getElementById("close-mistake").textContent = document.getElementById("answer-text").textContent;
  }
});
const noOutcome = (event) => {
  event.preventDefault();
  document.getElementById("close-mistake").textContent = words["answer.outcome"];
};
closing.addEventListener("invalid", noOutcome, { capture: true }); // told to each choice, it doesn't bubble
document.getElementById("close-cancel").addEventListener("click", () => closing.close());
document.getElementById("answer-dismiss").addEventListener("click", () => (answer.hidden = true));
document.getElementById("help").addEventListener("click", () => help.showModal());
document.addEventListener("tocsin:changed", keepChosen);
cards?.addEventListener("pointerdown", (event) => choose(event.target.closest(".card") ?? current()));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, textarea, select")) return;
  const key = event.key.toLowerCase();
  if (key === "?") help.showModal();
  else if (key === "m") document.dispatchEvent(new CustomEvent("tocsin:mute"));
  else if (DIRECTION_OF_KEY[key]) {
    const list = all();
    if (!list.length) return;
    const at = list.indexOf(current()) + DIRECTION_OF_KEY[key];
    choose(list[Math.min(list.length - 1, Math.max(0, at))], true);
  } else if (key === "enter" && chosen && !event.target.closest("a, button")) location.assign(`/incidents/${chosen}`);
  else if (STEP_OF_KEY[key] && performance.now() >= settled) {
    const card = current();
    const scope = cards ? card : document;
    const button = scope?.querySelector(`.steps [data-step="${STEP_OF_KEY[key]}"]`);
    if (button && !button.disabled) step(card.dataset.incident, STEP_OF_KEY[key], card);
  } else return;
  event.preventDefault();
});

keepChosen();
