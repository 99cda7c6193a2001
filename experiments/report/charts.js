"use strict";
// Draws a chart with ECharts, from the data that the page holds. Names are only ever set as text, never as markup.
const plotting = (() => {
  const { looks, charts } = JSON.parse(document.getElementById("chart-data").textContent);
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "path://M0,0L10,0L5,9Z",
    "path://M3,0H7V3H10V7H7V10H3V7H0V3H3Z", "path://M2,0L5,3L8,0L10,2L7,5L10,8L8,10L5,7L2,10L0,8L3,5L0,2Z",
    "path://M5,0L6.2,3.6L10,3.6L7,5.9L8.1,9.5L5,7.3L1.9,9.5L3,5.9L0,3.6L3.8,3.6Z"];
  const SIGNS = [..."●■▲◆▼✚✖★"];
  const DASHES = ["solid", [7, 3], [8, 3, 2, 3], [2, 3], [12, 3], [7, 2, 2, 2, 2, 2], [2, 1.5], [14, 3, 3, 3]];
  const NEAREST = 10; // lines in a tooltip
  const hidden = new Set();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const own = (name) => colour(`--series-${looks[name][0]}`);
  const symbol = (name) => SYMBOLS[looks[name][1]];

  function element(tag, parent, properties = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    parent.append(made);
    return made;
  }

  /** As in 14.3M; a unit stands apart. */
  function short(value, unit = "") {
    const size = Math.abs(value);
    const [scale, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]]
      .find(([from]) => size >= from) ?? [1, ""];
    if (!unit && size < 1e4) return String(Number(value.toPrecision(6)));
    return `${Number((value / scale).toPrecision(4))}${unit ? " " : ""}${prefix}${unit}`;
  }

  /** Exponential moving average without a bias to its start. */
  function smoothed(values, weight) {
    let sum = 0;
    let total = 0;
    return weight ? values.map((value) => (sum = weight * sum + value) / (total = weight * total + 1)) : values;
  }

  /** values: those that the axis must reach. place: of its name. */
  function axis({ label, unit }, log, values, place) {
    const quiet = { lineStyle: { color: colour("--line") } };
    const whole = values.every(Number.isInteger);
    const known = values.filter((value) => value > 0 || !log);
    const [low, high] = known.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
    const room = (high / low) ** 0.06; // a logarithmic axis would otherwise reach from one power to another
    const words = (value) => {
      const round = log ? Number(value.toPrecision(3)) : value;
      return whole && !Number.isInteger(round) ? "" : short(round, unit);
    };
    return {
      ...(log ? { type: "log", min: low / room, max: high * room, logBase: high < 10 * low ? 2 : 10 } : { type: "value" }),
      name: label, ...place, scale: true, minInterval: whole && !log ? 1 : undefined, axisLine: { ...quiet, show: true, onZero: false },
      splitLine: quiet, axisPointer: { label: { show: false } },
      axisLabel: { color: colour("--soft"), hideOverlap: true, formatter: words },
    };
  }

  function lines(series, state) {
    const fits = (x, ...values) => !(state.logX && x <= 0) && !(state.logY && Math.min(...values) <= 0);
    const [low, y, high] = [series.low, series.y, series.high].map((values) => smoothed(values, state.smoothing));
    const kept = series.x.map((x, place) => place).filter((place) => fits(series.x[place], y[place], low[place] ?? y[place]));
    const path = (value) => kept.map((place) => [series.x[place], value(place)]);
    const paint = { color: own(series.name) };
    const found = [];
    if (state.bands && low.length) {
      const band = { type: "line", name: series.name, stack: series.name, stackStrategy: "all", silent: true, symbol: "none",
        lineStyle: { opacity: 0 }, itemStyle: paint };
      found.push({ ...band, data: path((place) => low[place]) });
      found.push({ ...band, data: path((place) => high[place] - low[place]), areaStyle: { ...paint, opacity: 0.14 } });
    }
    if (state.seeds) {
      const data = Object.values(series.seeds).flatMap(([xs, ys]) => xs.map((x, place) => [x, ys[place]]));
      found.push({ type: "scatter", name: series.name, data: data.filter((point) => fits(...point)), symbolSize: 4, silent: true,
        z: 2, itemStyle: { ...paint, opacity: 0.45 } });
    }
    const every = Math.max(1, Math.floor(series.x.length / 8));
    found.push({ type: "line", name: series.name, data: path((place) => y[place]), z: 3, symbolSize: 6, showAllSymbol: true,
      symbol: (value, at) => (at.dataIndex % every ? "none" : symbol(series.name)),
      itemStyle: paint, lineStyle: { width: 2, type: DASHES[looks[series.name][1]] },
      emphasis: { focus: "series" }, blur: { lineStyle: { opacity: 0.15 } } });
    return found;
  }

  function points(series, state) {
    const [x, y] = [series.x[0], series.y[0]];
    const paint = own(series.name);
    const found = [];
    if (state.seeds) {
      const data = Object.entries(series.seeds).map(([seed, [[at], [value]]]) => [at, value, seed]);
      found.push({ type: "scatter", name: series.name, data, symbol: symbol(series.name), symbolSize: 5, z: 2,
        itemStyle: { color: paint, opacity: 0.4 } });
    }
    if (series.low.length) {
      found.push({ type: "line", name: series.name, data: [[x, series.low[0]], [x, series.high[0]]], silent: true, z: 2,
        symbol: "rect", symbolSize: [7, 1], itemStyle: { color: paint }, lineStyle: { color: paint, width: 1.2, opacity: 0.7 } });
    }
    const fill = series.hollow ? "transparent" : paint;
    found.push({ type: "scatter", name: series.name, data: [[x, y, series.note]], symbol: symbol(series.name), symbolSize: 11,
      z: 3, itemStyle: { color: fill, borderColor: paint, borderWidth: 1.5, opacity: 0.85 },
      emphasis: { focus: "series" }, blur: { itemStyle: { opacity: 0.15 } } });
    return found;
  }

  /** Steps through the points of the front, and a ring around each. */
  function front(spec) {
    const ink = colour("--ink");
    const data = corners(spec).map(([, x, y]) => [x, y]);
    return [
      { type: "line", step: "end", data, symbol: "none", silent: true, z: 1, lineStyle: { color: ink, width: 1, opacity: 0.6 } },
      { type: "scatter", id: "front", data, symbolSize: 19, silent: true, z: 4,
        itemStyle: { color: "transparent", borderColor: ink, borderWidth: 1.2 } },
    ];
  }

  function corners(spec) {
    const at = new Map(spec.series.map(({ name, x, y }) => [name, [name, x[0], y[0]]]));
    return spec.front.filter((name) => !hidden.has(name)).map((name) => at.get(name));
  }

  /** Names the points of the front, above them or beside them at an edge, except where names would overlap. */
  function label({ spec, chart }) {
    const taken = [];
    const data = corners(spec).map(([name, x, y]) => {
      const [left, top] = chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
      const width = echarts.format.getTextRect(name, "12px system-ui, sans-serif").width;
      const position = left < width / 2 ? "right" : left + width / 2 > chart.getWidth() ? "left" : "top";
      const box = { top: [left - width / 2, top - 26], right: [left + 12, top - 7], left: [left - 12 - width, top - 7] }[position];
      const show = box[0] >= 0 && box[0] + width <= chart.getWidth() && taken.every(([right, low, wide]) =>
        box[0] > right + wide || right > box[0] + width || Math.abs(box[1] - low) > 14);
      if (show) taken.push([...box, width]);
      return { value: [x, y], label: { show, position, distance: 6, formatter: () => name, color: colour("--ink"),
        textBorderColor: colour("--page"), textBorderWidth: 3 } };
    });
    if (data.length) chart.setOption({ series: [{ id: "front", data }] });
  }

  /** A tooltip as elements: a heading, a row for each name, and how many names are left out. */
  function bubble(heading, rows, rest) {
    const box = document.createElement("div");
    element("div", box, { textContent: heading });
    for (const [name, words] of rows) {
      const row = element("div", box, { className: `row series-${looks[name][0]}` });
      element("span", row, { textContent: SIGNS[looks[name][1]] });
      element("b", row, { textContent: name });
      element("span", row, { textContent: words });
    }
    if (rest > 0) element("div", box, { textContent: `and ${rest} more` });
    return box;
  }

  function tooltip(item, state) {
    const { spec, chart } = item;
    const look = { confine: true, className: "bubble", backgroundColor: colour("--panel"), borderColor: colour("--line"),
      textStyle: { color: colour("--ink"), fontSize: 13 } };
    if (spec.kind === "lines") {
      return { ...look, trigger: "axis", axisPointer: { type: "line", snap: true }, formatter: (found) => {
        const known = found.filter((each) => state.main.has(each.seriesIndex));
        const away = (each) => Math.abs(chart.convertToPixel({ yAxisIndex: 0 }, each.value[1]) - (item.pointer ?? 0));
        const near = known.sort((a, b) => away(a) - away(b)).slice(0, NEAREST).sort((a, b) => b.value[1] - a.value[1]);
        const rows = near.map((each) => [each.seriesName, short(each.value[1])]);
        return bubble(`${spec.x.label} ${short(found[0].axisValue)}`, rows, known.length - near.length);
      } };
    }
    return { ...look, trigger: "item", formatter: ({ value }) => {
      const place = (x, y) => chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
      const [left, top] = place(value[0], value[1]);
      const rows = [];
      for (const series of spec.series.filter(({ name }) => !hidden.has(name))) {
        const all = [[series.x[0], series.y[0], series.note], ...(state.seeds ? Object.entries(series.seeds) : [])
          .map(([seed, [[x], [y]]]) => [x, y, seed])];
        for (const [x, y, words] of all) {
          const [right, low] = place(x, y);
          if (Math.hypot(right - left, low - top) > 9) continue;
          const bar = words || !series.low.length ? "" : ` (${short(series.low[0])} to ${short(series.high[0])})`;
          rows.push([series.name, `${words ? `${words}: ` : ""}${short(x, spec.x.unit)}, ${short(y, spec.y.unit)}${bar}`]);
        }
      }
      return bubble(`${spec.x.label}, ${spec.y.label}`, rows.slice(0, NEAREST), rows.length - NEAREST);
    } };
  }

  function draw(item) {
    const { spec, state, chart } = item;
    const make = spec.kind === "lines" ? lines : points;
    const series = [];
    state.main = new Set();
    for (const each of spec.series.filter(({ name }) => !hidden.has(name))) {
      series.push(...make(each, state));
      state.main.add(series.length - 1);
    }
    const inside = { type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false, preventDefaultMouseMove: false,
      filterMode: "none" };
    const all = (key) => spec.series.flatMap((each) => [...each[key], ...(key === "y" ? [...each.low, ...each.high] : [])]);
    const edge = spec.kind === "points" ? ["6%", "6%"] : undefined; // so that no point lies on the frame
    const nameTextStyle = { color: colour("--ink") };
    chart.setOption({
      animation: false, textStyle: { fontFamily: "system-ui, sans-serif" },
      grid: { left: 8, right: 18, top: 34, bottom: 40, containLabel: true },
      xAxis: axis(spec.x, state.logX, all("x"), { nameLocation: "middle", nameGap: 28, nameTextStyle, boundaryGap: edge }),
      yAxis: axis(spec.y, state.logY, all("y"), { nameLocation: "end", nameGap: 12, nameTextStyle: { ...nameTextStyle, align: "left" } }),
      dataZoom: [{ ...inside, xAxisIndex: 0 }, { ...inside, yAxisIndex: 0 }],
      tooltip: tooltip(item, state), series: [...series, ...(spec.front.length ? front(spec) : [])],
    }, { replaceMerge: ["series"] });
    label(item);
  }

  return { looks, charts, hidden, element, draw, label };
})();
