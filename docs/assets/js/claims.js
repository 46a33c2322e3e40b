// The claims ledger: shows the rows of one concept, one verdict, or both. What is
// chosen stands in the address, so that a choice can be linked; a link to a row that
// the choice hides clears it. Without this script all rows show.
"use strict";

(() => {
  const form = document.querySelector("form.sk-claims-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll(".sk-claims > div[id]")];
  const selects = [...form.querySelectorAll("select")];

  function apply() {
    const concept = form.elements.concept.value;
    const verdict = form.elements.verdict.value;
    let shown = 0;
    for (const row of rows) {
      const names = row.dataset.concepts.split(" ");
      row.hidden =
        (concept && !names.includes(concept)) ||
        (verdict && row.dataset.verdict !== verdict);
      shown += !row.hidden;
    }
    form.querySelector("output").value = `${shown} of ${rows.length} claims`;
  }

  function remember(row) {
    const address = new URL(location.href);
    for (const { name, value } of selects) {
      if (value) address.searchParams.set(name, value);
      else address.searchParams.delete(name);
    }
    address.hash = row ? row.id : "";
    history.replaceState(history.state, "", address);
  }

  function recall() {
    const chosen = new URLSearchParams(location.search);
    for (const select of selects) {
      const wanted = chosen.get(select.name);
      const known = [...select.options].some((option) => option.value === wanted);
      select.value = known ? wanted : "";
    }
    apply();
  }

  function follow() {
    const row = rows.find((one) => `#${one.id}` === location.hash);
    if (!row || !row.hidden) return;
    for (const select of selects) select.value = "";
    apply();
    remember(row);
    row.scrollIntoView();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    apply();
    remember(null);
  });
  addEventListener("hashchange", follow);
  form.hidden = false;
  recall();
  follow();
})();
