// The filter above the table of buttons and stations: every word has to be somewhere in the row.

const words = JSON.parse(document.body.dataset.words);
const field = document.getElementById("filter");

function sift() {
  const terms = field.value.toLocaleLowerCase().split(/\s+/u).filter(Boolean);
  const rows = [...document.querySelectorAll("tr[data-child]")];
  let shown = 0;
  for (const row of rows) {
    const text = row.dataset.sought.toLocaleLowerCase();
    row.hidden = !terms.every((term) => text.includes(term));
    shown += row.hidden ? 0 : 1;
  }
  const told = words["children.shown"].replace("{shown}", shown).replace("{all}", rows.length);
  const status = document.getElementById("shown");
  if (status.textContent !== told) status.textContent = told;
  document.getElementById("no-match").hidden = shown > 0 || !rows.length;
}

if (field) {
  field.addEventListener("input", sift);
  field.form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("tocsin:changed", sift);
}
