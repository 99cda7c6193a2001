"use strict";
// A click on a column's name, or Enter or Space on it, sorts the table's rows; another one turns the order round.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent.trim();
      const compare = (a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === "" || right === "") return (left === "") - (right === ""); // empty cells stay last
        const apart = Number(left) - Number(right);
        const order = Number.isNaN(apart) ? left.localeCompare(right, "en", { numeric: true }) : apart;
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// A link to a variant unfolds it.
function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target?.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
