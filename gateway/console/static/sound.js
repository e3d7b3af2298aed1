// The alarm's sound: two tones that repeat while an alarm is not acknowledged. A page that may not sound says so.

const MUTE_MS = 60_000;
const words = JSON.parse(document.body.dataset.words);
const button = document.getElementById("sound");
const mute = document.getElementById("mute");
const context = new AudioContext();

let raised = document.body.dataset.raised.split(" ").filter(Boolean).map(Number);
let heard = new Set(JSON.parse(sessionStorage.getItem("heard") ?? "[]"));
let mutedUntil = Number(sessionStorage.getItem("mutedUntil") ?? 0);
let stale = false;
let nextAt = 0;

function tone(hertz, from, length, loud = 0.4) {
  const oscillator = new OscillatorNode(context, { type: "triangle", frequency: hertz });
  const gain = new GainNode(context, { gain: 0 });
  const at = context.currentTime + from;
  gain.gain.setValueAtTime(0, at);
  gain.gain.linearRampToValueAtTime(loud, at + 0.02);
  gain.gain.setValueAtTime(loud, at + length - 0.04);
  gain.gain.linearRampToValueAtTime(0, at + length);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(at);
  oscillator.stop(at + length);
}

function alarm() {
  for (let pair = 0; pair < 3; pair++) {
    tone(960, pair * 0.4, 0.2);
    tone(720, pair * 0.4 + 0.2, 0.2);
  }
}

const notLive = () => [0, 0.3].forEach((from) => tone(330, from, 0.2, 0.25));
const muted = () => Date.now() < mutedUntil;

function muteUntil(at) {
  mutedUntil = at;
  sessionStorage.setItem("mutedUntil", at);
  step();
}

// A new alarm sounds even if the last was muted.
function take(ids) {
  const fresh = ids.some((id) => !heard.has(id));
  raised = ids;
  heard = new Set(ids);
  sessionStorage.setItem("heard", JSON.stringify(ids));
  if (fresh) {
    mutedUntil = nextAt = 0;
    sessionStorage.removeItem("mutedUntil");
  }
  step();
}

function step() {
  const blocked = context.state !== "running";
  const wanted = raised.length > 0;
  const left = Math.ceil((mutedUntil - Date.now()) / 1000);
  const state = blocked ? "blocked" : muted() ? "muted" : wanted ? "sounding" : "on";
  const text = words[`sound.${state === "sounding" ? "on" : state}`].replace("{s}", left);
  button.dataset.state = state;
  if (button.textContent !== text) button.textContent = text;
  mute.hidden = !(wanted || stale) || blocked || muted();
  const now = performance.now();
  if (blocked || muted() || now < nextAt) return;
  if (wanted) {
    alarm();
    nextAt = now + 2000;
  } else if (stale) {
    notLive();
    nextAt = now + 6000;
  }
}

// A click of the mouse leaves the keyboard to the alarms.
for (const one of [button, mute]) one.addEventListener("click", ({ detail }) => detail && one.blur());
button.addEventListener("click", async () => {
  if (muted()) return muteUntil(0);
  await context.resume();
  if (!raised.length) tone(720, 0, 0.3);
  step();
});
mute.addEventListener("click", () => muteUntil(Date.now() + MUTE_MS));
document.addEventListener("tocsin:mute", () => (raised.length || stale) && muteUntil(Date.now() + MUTE_MS));
document.addEventListener("tocsin:summary", ({ detail }) => take(detail.raised.map(({ id }) => id)));
document.addEventListener("tocsin:stale", () => ((stale = true), step()));
document.addEventListener("tocsin:alive", () => ((stale = false), step()));
for (const gesture of ["pointerdown", "keydown"]) {
  addEventListener(gesture, () => context.state === "suspended" && context.resume().then(step)); // what browsers wait for
}
context.addEventListener("statechange", step);
setInterval(step, 250);
take(raised);
