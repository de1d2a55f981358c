// The table of jobs: sorted by the column that is clicked, filtered by words and by choice.
const body = document.querySelector("#jobs tbody");
const heads = [...document.querySelectorAll("#jobs th[data-column]")];
let rows = [];
const words = document.getElementById("words");
const picks = [...document.querySelectorAll("select[data-column]")];

function compare(a, b) { // numbers by size, words by alphabet
  return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
}

function sortBy(head) {
  const column = Number(head.dataset.column), down = head.getAttribute("aria-sort") === "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const [known, unknown] = [[], []]; // what has no value comes last, whichever way
  for (const line of rows) (line.keys[column] === null ? unknown : known).push(line);
  known.sort((a, b) => (down ? -1 : 1) * compare(a.keys[column], b.keys[column]));
  for (const { row } of [...known, ...unknown]) body.append(row, ...(row.opened ? [row.opened] : []));
}

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { row, keys, text } of rows) {
    const kept = wanted.every((word) => text.includes(word))
      && picks.every((pick) => !pick.value || keys[Number(pick.dataset.column)] === pick.value);
    row.hidden = !kept;
    if (row.opened) row.opened.hidden = !kept;
    shown += kept;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} jobs`;
}

for (const head of heads) head.firstElementChild.addEventListener("click", () => sortBy(head));
for (const pick of picks) pick.addEventListener("change", filter);
words.addEventListener("input", filter);
document.getElementById("all").addEventListener("click", () => {
  words.value = "";
  for (const pick of picks) pick.value = "";
  filter();
});
data.then((found) => {
  body.innerHTML = found.rows; // every value in it was escaped when it was made
  rows = [...body.rows].map((row) => ({ row, keys: JSON.parse(row.dataset.keys), text: row.textContent.toLowerCase() }));
  filter();
});
