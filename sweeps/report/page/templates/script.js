"use strict";
(() => {
  const told = JSON.parse(document.getElementById("told").textContent);
  const tip = document.getElementById("tip");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Pointing at a mark: what it says, and the same trial everywhere.
  let hot = [];
  const cool = () => { hot.forEach((one) => one.classList.remove("hot")); hot = []; tip.hidden = true; };
  const show = (mark, x, y) => {
    cool();
    const id = mark.dataset.id;
    if (id) { hot = all(`[data-id="${CSS.escape(id)}"]`); hot.forEach((one) => one.classList.add("hot")); }
    const words = mark.dataset.t || told[id];
    if (!words || mark.tagName === "TR") return;
    tip.textContent = words;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(6, y - box.height - 12) : y + 18}px`;
  };
  const over = (event) => {
    const mark = event.target.closest ? event.target.closest("[data-id],[data-t]") : null;
    if (mark) show(mark, event.clientX, event.clientY); else if (hot.length || !tip.hidden) cool();
  };
  document.addEventListener("pointermove", over, { passive: true });
  document.addEventListener("pointerdown", over, { passive: true });
  document.addEventListener("scroll", cool, { passive: true });

  // One ε of the search at a time; all of them in print and without this script.
  const tabs = all(".tabs button");
  const panels = all(".tab");
  if (tabs.length > 1) {
    const bar = tabs[0].parentElement;
    bar.hidden = false;
    bar.parentElement.classList.add("tabbed");
    const open = (number) => {
      tabs.forEach((tab, at) => { tab.setAttribute("aria-selected", String(at === number)); tab.tabIndex = at === number ? 0 : -1; });
      panels.forEach((panel, at) => panel.classList.toggle("open", at === number));
    };
    tabs.forEach((tab, at) => {
      tab.addEventListener("click", () => open(at));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) { const next = (at + step + tabs.length) % tabs.length; open(next); tabs[next].focus(); }
      });
    });
    open(0);
  }

  // Parallel coordinates: drag along an axis to keep the lines that cross it there.
  all("svg.parallel").forEach((figure) => {
    const strands = all(".strand", figure).map((line) => ({
      line,
      points: line.getAttribute("d").slice(1).split("L").map((one) => one.split(",").map(Number)),
    }));
    const brushes = all(".brush", figure);
    const kept = new Map();
    const redraw = () => strands.forEach(({ line, points }) => {
      const inside = [...kept].every(([axis, [low, high]]) => points[axis][1] >= low && points[axis][1] <= high);
      line.classList.toggle("out", !inside);
    });
    brushes.forEach((brush, axis) => {
      let start = null;
      const picked = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      picked.setAttribute("class", "picked");
      picked.setAttribute("x", brush.getAttribute("x"));
      picked.setAttribute("width", brush.getAttribute("width"));
      const height = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(figure.getScreenCTM().inverse()).y;
      brush.addEventListener("pointerdown", (event) => { start = height(event); brush.setPointerCapture(event.pointerId); event.preventDefault(); });
      brush.addEventListener("pointermove", (event) => {
        if (start === null) return;
        const [low, high] = [start, height(event)].sort((a, b) => a - b);
        if (high - low < 3) return;
        kept.set(axis, [low, high]);
        picked.setAttribute("y", low);
        picked.setAttribute("height", high - low);
        brush.before(picked);
        redraw();
      });
      brush.addEventListener("pointerup", (event) => {
        if (start !== null && Math.abs(height(event) - start) < 3) { kept.delete(axis); picked.remove(); redraw(); }
        start = null;
      });
    });
  });

  // The table of runs: sort by a column, filter by words.
  const runs = document.getElementById("runs");
  if (runs) {
    const body = runs.tBodies[0];
    const rows = [...body.rows];
    const value = (row, column) => {
      const text = row.cells[column].textContent.trim();
      const number = Number(text.replace("∞", "Infinity"));
      return text === "–" || text === "" ? null : Number.isNaN(number) ? text : number;
    };
    all("th button", runs).forEach((button, column) => button.addEventListener("click", () => {
      const head = button.parentElement;
      const rising = head.getAttribute("aria-sort") !== "ascending";
      all("th", runs.tHead).forEach((one) => one.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return rising ? order : -order;
      });
      body.append(...rows);
    }));
    const filter = document.getElementById("filter");
    const count = document.getElementById("shown");
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      });
      count.textContent = `${shown} of ${rows.length}`;
    };
    filter.addEventListener("input", apply);
    apply();
  }
})();
