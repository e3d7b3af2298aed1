// The station's time, and every age on the page, counted on from the station's last word about its clock.

const words = JSON.parse(document.body.dataset.words);
const clock = document.getElementById("clock");
const zoneMs = Number(document.body.dataset.zoneMin) * 60_000;
let ahead = Number(document.body.dataset.now) - performance.now();
let live = true;

const two = (number) => String(number).padStart(2, "0");

function stopwatch(ms) {
  const all = Math.max(0, Math.floor(ms / 1000));
  const [days, hours, minutes, seconds] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
  if (days) return `${words["span.d"].replace("{n}", days)} ${two(hours)}:${two(minutes)}`;
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

function ago(ms) {
  const length = Math.max(0, ms);
  const [unit, size] = length < 120e3 ? ["s", 1e3] : length < 7200e3 ? ["min", 60e3] : length < 172800e3 ? ["h", 3600e3] : ["d", 86400e3];
  return words.ago.replace("{age}", words[`span.${unit}`].replace("{n}", Math.floor(length / size)));
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tick() {
  const now = performance.now() + ahead;
  if (live) set(clock, new Date(now + zoneMs).toISOString().slice(11, 19)); // a page that is not live has no ticking clock
  for (const element of document.querySelectorAll("[data-age]")) set(element, stopwatch(now - element.dataset.age));
  for (const element of document.querySelectorAll("[data-ago]")) set(element, ago(now - element.dataset.ago));
}

document.addEventListener("tocsin:beat", ({ detail }) => {
  ahead = detail - performance.now();
});
document.addEventListener("tocsin:stale", () => (live = false));
document.addEventListener("tocsin:alive", () => (live = true));
document.addEventListener("tocsin:changed", tick);
setInterval(tick, 250);
tick();
