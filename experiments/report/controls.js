"use strict";
// The controls above charts and their legends.
(() => {
  const { looks, charts, hidden, element, draw, label } = plotting;
  const FEW = 12; // variants whose bands, or single seeds, can be told apart
  const drawn = [];

  function zoom({ chart }, factor) {
    const batch = chart.getOption().dataZoom.map(({ start, end }, dataZoomIndex) => {
      const [middle, half] = [(start + end) / 2, factor ? ((end - start) / 2) * factor : 50];
      return { dataZoomIndex, start: factor ? Math.max(0, middle - half) : 0, end: factor ? Math.min(100, middle + half) : 100 };
    });
    chart.dispatchAction({ type: "dataZoom", batch });
  }

  /** Switches above a chart; each change draws it again. */
  function controls(item, bar) {
    const { spec, state } = item;
    const box = (words, key) => {
      const line = element("label", bar);
      const input = element("input", line, { type: "checkbox", checked: state[key] });
      line.append(words);
      input.addEventListener("change", () => { state[key] = input.checked; draw(item); });
    };
    if (spec.series.every(({ x }) => x.some((value) => value > 0))) box(`log ${spec.x.label}`, "logX");
    if (spec.series.every(({ y }) => y.some((value) => value > 0))) box(`log ${spec.y.label}`, "logY");
    if (spec.kind === "lines" && spec.series.some(({ low }) => low.length)) box("bands", "bands");
    if (spec.series.some(({ seeds }) => Object.keys(seeds).length)) box("single seeds", "seeds");
    if (spec.kind === "lines") {
      const line = element("label", bar, { textContent: "smoothing" });
      const range = element("input", line, { type: "range", min: 0, max: 0.98, step: 0.02, value: 0 });
      range.addEventListener("input", () => { state.smoothing = Number(range.value); draw(item); });
    }
    const buttons = element("span", bar, { className: "zoom" });
    for (const [words, name, factor] of [["+", "Zoom in", 0.5], ["−", "Zoom out", 2], ["reset", "Reset the zoom", 0]]) {
      const button = element("button", buttons, { type: "button", textContent: words, ariaLabel: `${name}: ${spec.title}` });
      button.addEventListener("click", () => zoom(item, factor));
    }
  }

  function start(figure) {
    const spec = charts[figure.dataset.chart];
    const few = spec.series.length <= FEW;
    const state = { logX: spec.x.log, logY: spec.y.log, bands: few, seeds: few && spec.kind === "points", smoothing: 0 };
    const still = figure.querySelector(".still");
    const live = document.createElement("div");
    live.className = "live";
    still.before(live);
    const bar = element("div", live, { className: "controls", role: "group", ariaLabel: `Controls: ${spec.title}` });
    const plot = element("div", live, { className: "plot", role: "img", ariaLabel: `${spec.title}. A table below has its numbers.` });
    const item = { spec, state, chart: echarts.init(plot, null, { renderer: "svg" }) };
    controls(item, bar);
    draw(item);
    item.chart.getZr().on("mousemove", ({ offsetY }) => { item.pointer = offsetY; });
    item.chart.on("datazoom", () => label(item));
    new ResizeObserver(() => { item.chart.resize(); label(item); }).observe(plot);
    figure.classList.add("drawn");
    drawn.push(item);
  }

  /** Makes the entries of a legend buttons that show and hide a variant in every chart. */
  function legend(list) {
    for (const entry of list.querySelectorAll("[data-name]")) {
      const { name } = entry.dataset;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        toggled();
      });
      for (const [event, type] of [["mouseenter", "highlight"], ["focus", "highlight"], ["mouseleave", "downplay"], ["blur", "downplay"]]) {
        button.addEventListener(event, () => drawn.forEach(({ chart }) => chart.dispatchAction({ type, seriesName: name })));
      }
    }
    const every = document.createElement("li");
    every.className = "every";
    list.prepend(every);
    for (const [words, names] of [["Show all", []], ["Hide all", Object.keys(looks)]]) {
      element("button", every, { type: "button", textContent: words }).addEventListener("click", () => {
        hidden.clear();
        names.forEach((name) => hidden.add(name));
        toggled();
      });
    }
  }

  function toggled() {
    for (const entry of document.querySelectorAll(".legend [data-name]")) {
      entry.firstChild.ariaPressed = String(!hidden.has(entry.dataset.name));
    }
    drawn.forEach(draw);
  }

  document.querySelectorAll(".legend").forEach(legend);
  toggled();
  const near = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    near.unobserve(target);
    start(target);
  }), { rootMargin: "600px" });
  document.querySelectorAll("[data-chart]").forEach((figure) => near.observe(figure));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
})();
