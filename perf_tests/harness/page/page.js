"use strict";
// The page is complete without this: it only hides, sorts and unfolds what stands there.
(() => {
  const form = document.querySelector("form.filters");
  const list = document.getElementById("list");
  const said = document.getElementById("found");
  const cases = [...list.children];
  const orders = {
    worst: (a, b) => a.dataset.rank - b.dataset.rank,
    id: (a, b) => a.dataset.id.localeCompare(b.dataset.id),
    change: (a, b) => b.dataset.change - a.dataset.change,
    seconds: (a, b) => b.dataset.seconds - a.dataset.seconds,
  };
  let order = "worst";

  const show = () => {
    const asked = new FormData(form);
    const words = asked.get("text").toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = new Set(asked.getAll("kind"));
    let found = 0;
    for (const each of cases) {
      const data = each.dataset;
      each.hidden = !(
        kinds.has(data.kind) &&
        (!asked.get("pipeline") || asked.get("pipeline") === data.pipeline) &&
        (!asked.get("scheme") || asked.get("scheme") === data.scheme) &&
        words.every((word) => data.id.toLowerCase().includes(word))
      );
      found += !each.hidden;
    }
    said.textContent = `${found} of ${cases.length} cases`;
    if (asked.get("order") !== order) {
      order = asked.get("order");
      list.append(...[...cases].sort(orders[order]));
    }
  };
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.matches("details.case")) {
      target.hidden = false;
      target.open = true;
      target.scrollIntoView();
    }
  };

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  addEventListener("hashchange", unfold);
  // Where the style sheet cannot print what is folded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = cases.filter((each) => !each.open);
    folded.forEach((each) => (each.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));
  form.hidden = false;
  show();
  unfold();
})();
