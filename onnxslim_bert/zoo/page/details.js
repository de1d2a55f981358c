// A job's details, in a row of their own below it.
async function reveal(row, button) {
  const { jobs } = await data;
  const below = document.createElement("tr"), cell = below.insertCell();
  below.className = "opened";
  below.id = button.getAttribute("aria-controls");
  cell.colSpan = row.closest("table").tHead.rows[0].cells.length;
  cell.innerHTML = jobs[Number(row.dataset.job)]; // every value in it was escaped when it was made
  row.opened = below;
  row.after(below);
}

function toggle(row) {
  const button = row.querySelector("button"), opens = button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(opens));
  if (opens) return reveal(row, button);
  row.opened?.remove();
  row.opened = null;
}

body.addEventListener("click", (event) => {
  const button = event.target.closest("button[aria-controls]");
  if (button) toggle(button.closest("tr"));
});
for (const link of document.querySelectorAll("a[data-job]")) {
  link.addEventListener("click", () => {
    document.getElementById("all").click();
    const row = document.getElementById(`job-${link.dataset.job}`);
    if (row.querySelector("button").getAttribute("aria-expanded") === "false") toggle(row);
  });
}
