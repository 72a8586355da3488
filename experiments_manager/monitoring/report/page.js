"use strict";

/* Sorting: a click on a column's head; numbers by value, empty cells last. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const [m, n] = [Number(x), Number(y)];
      const ascending = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
      return down ? -ascending : ascending;
    };
    body.append(...[...body.rows].sort(order));
  }));
}

/* The curves of the run under the pointer stand out. */
for (const element of document.querySelectorAll("[data-run]")) {
  const choose = (on) => {
    document.body.classList.toggle("choosing", on);
    for (const curve of document.getElementsByClassName(element.dataset.run)) curve.classList.toggle("chosen", on);
  };
  element.addEventListener("mouseenter", () => choose(true));
  element.addEventListener("mouseleave", () => choose(false));
}

/* A link to a run unfolds it; what is folded is printed, too. */
const unfold = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) target.open = true;
};
addEventListener("hashchange", unfold);
unfold();
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not(.bulky)")) details.open = true;
});
