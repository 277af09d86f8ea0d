"use strict";
// Draws the data in #data. Charts are small, so they are redrawn from `state` on every change.
const data = JSON.parse(document.getElementById("data").textContent);
const colour = (name) => `var(--arm-${data.arms.indexOf(name) % 8})`;
const isBase = (name) => name === data.baseline;
// After the eighth arm, colours repeat with another dash pattern.
const dashes = (name) => isBase(name) ? "7 4" : ["", "12 3 2 3", "2 3"][Math.floor(data.arms.indexOf(name) / 8) % 3];
const hiddenArms = new Set(data.controls), hiddenSeeds = new Set();
const redraws = [];
const redraw = () => redraws.forEach((draw) => draw());

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function svg(tag, attributes = {}, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function count(value) {
  for (const [size, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)}${suffix}`;
  return `${+value.toPrecision(3)}`;
}
const minus = (text) => text.replace("-", "\u2212");
const percent = (share) => minus(`${(100 * share).toFixed(Math.abs(share) < 0.1 ? 1 : 0)} %`);

// Round numbers that cover low..high, about `wanted` of them.
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= raw) * power;
  const found = [];
  // Multiples of the step, not a sum of steps: a sum misses zero by a rounding error.
  for (let i = Math.ceil(low / step - 1e-6); i <= high / step + 1e-6; i++) found.push(+(i * step).toPrecision(10));
  return found;
}
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const digit of [1, 2, 5]) {
      const value = digit * 10 ** power;
      if (value >= low && value <= high) found.push(value);
    }
  return found;
}

// Runs that are switched on, and their mean where all were measured at the same places.
function shown(arms) {
  return arms.filter((arm) => !hiddenArms.has(arm.name)).map((arm) => {
    const runs = arm.runs.filter((run) => !hiddenSeeds.has(run.seed));
    const alike = runs.length && runs.every((run) => run.points.length === runs[0].points.length &&
      run.points.every((point, i) => point[0] === runs[0].points[i][0]));
    const mean = alike && runs[0].points.map((point, i) =>
      [point[0], runs.reduce((sum, run) => sum + run.points[i][1], 0) / runs.length]);
    return { name: arm.name, runs, mean: mean || (runs[0] && runs[0].points), all: alike };
  }).filter((arm) => arm.runs.length);
}

function lineChart(box, chart) {
  const holder = box.appendChild(html("div", { class: "chart" }));
  const tip = html("div", { class: "tip", role: "status" });
  tip.hidden = true;
  let width = 0, at = null, view = null;

  function draw() {
    width = holder.clientWidth;
    if (!width) return;
    const narrow = width < 520, height = narrow ? 270 : 350;
    const arms = shown(chart.arms);
    const longest = Math.max(6, ...arms.map((arm) => arm.name.length));
    const plot = { left: 46, right: width - (narrow ? 12 : Math.min(170, 20 + 7.6 * longest)), top: 14, bottom: height - 40 };
    const points = arms.flatMap((arm) => arm.runs.flatMap((run) => run.points));
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img", "aria-label": chart.label });
    holder.replaceChildren(picture, tip);
    if (!points.length) { picture.append(svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing selected")); return; }
    const last = Math.max(...points.map((point) => point[0]));
    const positive = points.map((point) => point[0]).filter((value) => value > 0);
    const first = chart.log ? Math.min(...positive) : 0;
    const range = chart.range(points, last);
    const wide = chart.log ? (value) => Math.log(value / first) / Math.log(last / first) : (value) => value / last;
    const x = (value) => plot.left + wide(value) * (plot.right - plot.left);
    const y = (value) => plot.bottom - (value - range[0]) / (range[1] - range[0]) * (plot.bottom - plot.top);
    const clip = `clip-${chart.id}`;
    const clipped = svg("clipPath", { id: clip });
    clipped.append(svg("rect", { x: plot.left, y: plot.top - 4, width: plot.right - plot.left + 4, height: plot.bottom - plot.top + 8 }));
    picture.append(clipped);
    for (const value of ticks(range[0], range[1], narrow ? 4 : 6)) {
      picture.append(svg("line", { x1: plot.left, x2: plot.right, y1: y(value), y2: y(value), stroke: "var(--grid)" }));
      picture.append(svg("text", { x: plot.left - 8, y: y(value) + 4, "text-anchor": "end" }, chart.tick(value)));
    }
    let free = -Infinity;
    for (const value of chart.log ? logTicks(first, last) : ticks(0, last, narrow ? 4 : 8)) {
      if (x(value) - free < 38) continue;
      free = x(value);
      picture.append(svg("line", { x1: x(value), x2: x(value), y1: plot.bottom, y2: plot.bottom + 5, stroke: "var(--line)" }));
      picture.append(svg("text", { x: x(value), y: plot.bottom + 19, "text-anchor": "middle" }, count(value)));
    }
    picture.append(svg("line", { x1: plot.left, x2: plot.right, y1: plot.bottom, y2: plot.bottom, stroke: "var(--line)" }));
    picture.append(svg("text", { x: plot.right, y: height - 4, "text-anchor": "end" }, chart.across));
    const inner = svg("g", { "clip-path": `url(#${clip})` });
    picture.append(inner);
    const path = (run) => run.filter((point) => !chart.log || point[0] > 0)
      .map((point, i) => `${i ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("");
    // From the lowest seed to the highest.
    const band = (runs) => {
      const at = runs[0].points.map((point, i) => [point[0], runs.map((run) => run.points[i][1])]).filter((each) => !chart.log || each[0] > 0);
      const edge = (pick) => at.map(([tokens, values]) => [tokens, pick(...values)]);
      return `${path(edge(Math.max))}${path(edge(Math.min).reverse()).replace("M", "L")}Z`;
    };
    for (const arm of arms) {
      const several = arm.runs.length > 1;
      if (several && arm.all) inner.append(svg("path", { d: band(arm.runs), fill: colour(arm.name), opacity: .13, class: "band" }));
      for (const run of several || !arm.all ? arm.runs : [])
        inner.append(svg("path", { d: path(run.points), fill: "none", stroke: colour(arm.name), "stroke-width": 1, opacity: arm.all ? .35 : 1 }));
      if (arm.all) inner.append(svg("path", {
        d: path(arm.mean), fill: "none", stroke: colour(arm.name), "stroke-width": isBase(arm.name) ? 2 : 2.4,
        "stroke-linejoin": "round", "stroke-dasharray": dashes(arm.name),
      }));
    }
    if (chart.level !== null && chart.level !== undefined && chart.level > range[0] && chart.level < range[1]) {
      picture.append(svg("line", { x1: plot.left, x2: plot.right, y1: y(chart.level), y2: y(chart.level), stroke: "var(--soft)", "stroke-dasharray": "2 4" }));
      const [side, anchor] = chart.levelRight ? [plot.right - 6, "end"] : [plot.left + 6, "start"];
      picture.append(svg("text", { x: side, y: y(chart.level) + (chart.levelBelow ? 16 : -7), "text-anchor": anchor, class: "halo" }, chart.levelName));
    }
    drawMarks(picture, arms, x, y, plot);
    drawPoints(inner, arms, x, y);
    if (!narrow) drawNames(picture, arms, x, y, range, plot);
    const cursor = svg("g");
    picture.append(cursor);
    const places = [...new Set(arms.flatMap((arm) => arm.mean.map((point) => point[0])))]
      .filter((value) => !chart.log || value > 0).sort((a, b) => a - b);
    view = { x, y, plot, arms, cursor, places };
    picture.addEventListener("pointermove", (event) => {
      const pointed = event.clientX - picture.getBoundingClientRect().left;
      at = places.reduce((best, value, i) => Math.abs(x(value) - pointed) < Math.abs(x(places[best]) - pointed) ? i : best, 0);
      point();
    });
    picture.addEventListener("pointerleave", () => { at = null; point(); });
    picture.addEventListener("blur", () => { at = null; point(); });
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      at = Math.min(places.length - 1, Math.max(0, (at === null ? places.length : at) + step));
      point();
    });
    if (at !== null && at >= places.length) at = null;
    point();
  }

  function drawMarks(picture, arms, x, y, plot) {
    const marks = (chart.marks || []).filter((mark) => arms.some((arm) => arm.name === mark.arm));
    marks.sort((a, b) => a.tokens - b.tokens).forEach((mark) => {
      const stroke = colour(mark.arm), across = x(mark.tokens), up = y(chart.level);
      if (!(across >= plot.left && across <= plot.right)) return;
      picture.append(svg("line", { x1: across, x2: across, y1: up, y2: plot.bottom, stroke, "stroke-dasharray": "3 3" }));
      picture.append(svg("circle", { cx: across, cy: up, r: 5, fill: "var(--card)", stroke, "stroke-width": 2.4 }));
    });
  }

  // Runs that were measured only at their ends: one point each.
  function drawPoints(inner, arms, x, y) {
    for (const arm of chart.dots ? arms : [])
      for (const point of arm.mean) inner.append(svg("circle", { cx: x(point[0]), cy: y(point[1]), r: 4, fill: colour(arm.name) }));
    for (const each of chart.budgets || []) {
      if (!arms.some((arm) => arm.name === each.arm) || hiddenSeeds.has(each.seed)) continue;
      for (const point of each.points)
        inner.append(svg("rect", { x: x(point[0]) - 3, y: y(point[1]) - 3, width: 6, height: 6, fill: "var(--card)", stroke: colour(each.arm), "stroke-width": 1.6 }));
    }
  }

  // Names at the ends of the lines, moved apart where they would overlap.
  function drawNames(picture, arms, x, y, range, plot) {
    const names = arms.map((arm) => {
      const [tokens, value] = arm.mean[arm.mean.length - 1];
      return { name: arm.name, from: x(tokens), y: Math.min(plot.bottom, Math.max(plot.top, y(value))) };
    }).sort((a, b) => a.y - b.y);
    for (let round = 0; round < 60; round++)
      for (let i = 1; i < names.length; i++) {
        const lack = 15 - (names[i].y - names[i - 1].y);
        if (lack > 0) { names[i - 1].y -= lack / 2; names[i].y += lack / 2; }
      }
    for (const each of names) {
      const said = each.name.length > 20 ? `${each.name.slice(0, 19)}\u2026` : each.name;
      picture.append(svg("text", { x: Math.max(each.from, plot.left) + 8, y: each.y + 4, style: `fill:${colour(each.name)};font-weight:600`, class: "halo" }, said));
    }
  }

  function point() {
    if (!view) return;
    view.cursor.replaceChildren();
    tip.hidden = at === null;
    if (at === null) return;
    const tokens = view.places[at], across = view.x(tokens);
    view.cursor.append(svg("line", { x1: across, x2: across, y1: view.plot.top, y2: view.plot.bottom, stroke: "var(--soft)", opacity: .5 }));
    const rows = view.arms.map((arm) => [arm, arm.mean.find((each) => each[0] === tokens)]).filter((row) => row[1]);
    rows.sort((a, b) => b[1][1] - a[1][1]);
    tip.replaceChildren(html("b", {}, `${count(tokens)} ${chart.unit || "tokens"}`));
    for (const [arm, [, value]] of rows) {
      const level = view.y(value);
      if (level >= view.plot.top - 4 && level <= view.plot.bottom + 4)
        view.cursor.append(svg("circle", { cx: across, cy: level, r: 3.6, fill: colour(arm.name) }));
      tip.append(html("div", {},
        html("span", { class: dashes(arm.name) ? "key dashed" : "key", style: `--c:${colour(arm.name)}` }), arm.name,
        html("span", { class: "value" }, chart.value(value))));
    }
    const left = across + 14 + tip.offsetWidth > width ? across - tip.offsetWidth - 14 : across + 14;
    tip.style.transform = `translate(${Math.max(0, left)}px, 10px)`;
  }

  redraws.push(draw);
  new ResizeObserver(() => { if (holder.clientWidth !== width) draw(); }).observe(holder);
  return chart;
}

function armButtons(box, arms) {
  const row = box.appendChild(html("div", { class: "controls" }));
  const toggle = (set, value, label) => {
    const button = html("button", { type: "button", "aria-pressed": "true" }, ...label);
    button.addEventListener("click", () => {
      set.has(value) ? set.delete(value) : set.add(value);
      redraw();
    });
    redraws.push(() => button.setAttribute("aria-pressed", String(!set.has(value))));
    row.append(button);
  };
  for (const arm of arms)
    toggle(hiddenArms, arm.name, [html("span", { class: dashes(arm.name) ? "key dashed" : "key", style: `--c:${colour(arm.name)}` }), arm.name]);
  const seeds = [...new Set(arms.flatMap((arm) => arm.runs.map((run) => run.seed)))].sort((a, b) => a - b);
  if (seeds.length > 1) for (const seed of seeds) toggle(hiddenSeeds, seed, [`seed ${seed}`]);
  row.append(html("span", { class: "gap" }));
  return row;
}
function choice(row, label, on, change) {
  const button = html("button", { type: "button", class: "choice", "aria-pressed": String(on) }, label);
  button.addEventListener("click", () => {
    on = !on;
    button.setAttribute("aria-pressed", String(on));
    change(on);
    redraw();
  });
  row.append(button);
}

function lossSection() {
  const box = document.getElementById("loss");
  if (!data.loss.arms.length) return;
  box.hidden = false;
  const row = armButtons(box, data.loss.arms);
  let close = true;
  const chart = lineChart(box, {
    id: "loss", label: "Validation loss against corpus tokens", arms: data.loss.arms, log: false,
    level: data.loss.target, levelName: `${data.baseline}: ${data.loss.target.toFixed(3)}`, levelBelow: true, marks: data.loss.marks,
    budgets: data.loss.budgets,
    across: "corpus tokens", value: (value) => value.toFixed(3), tick: (value) => `${value}`,
    range(points, last) {
      // Close up: from where a quarter of the corpus has been seen. All of the fall would hide what differs.
      const seen = close ? points.filter((point) => point[0] >= last / 4) : points;
      const values = (seen.length > 1 ? seen : points).map((point) => point[1]);
      const low = Math.min(...values, data.loss.target), high = Math.max(...values, data.loss.target), room = (high - low || 1) * 0.06;
      return [low - room, high + room];
    },
  });
  choice(row, "close-up", close, (on) => { close = on; });
  choice(row, "log tokens", chart.log, (on) => { chart.log = on; });
}

function substitutionSection() {
  const box = document.getElementById("substitution");
  if (!data.substitution.length) return;
  box.hidden = false;
  armButtons(box, data.substitution);
  const alone = data.substitution[0].alone;
  lineChart(box, {
    id: "substitution", label: "Corpus tokens needed against procedural tokens", arms: data.substitution, log: false, dots: true,
    level: alone, levelName: `${data.baseline}: ${count(alone)}`, levelBelow: true, levelRight: true,
    across: "procedural tokens", unit: "procedural tokens", value: (value) => `${count(value)} corpus tokens`, tick: count,
    range: (points) => [0, 1.08 * Math.max(alone, ...points.map((point) => point[1]))],
  });
}

function diagnosticSections() {
  for (const diagnostic of data.diagnostics) {
    const box = html("section", {}, html("h2", {}, `${diagnostic.name[0].toUpperCase()}${diagnostic.name.slice(1)} accuracy`),
      html("p", { class: "sub" }, "Accuracy on validation samples while training on the diagnostic from each arm's weights; higher is better."));
    document.getElementById("diagnostics").append(box);
    const row = armButtons(box, diagnostic.arms);
    let close = false;
    const chart = lineChart(box, {
      id: diagnostic.name, label: `${diagnostic.name} accuracy against tokens`, arms: diagnostic.arms, log: false, level: diagnostic.chance,
      levelName: diagnostic.chance === null ? "" : `guessing: ${percent(diagnostic.chance)}`,
      across: "diagnostic tokens", value: (value) => `${(100 * value).toFixed(1)} %`, tick: (value) => `${+(100 * value).toPrecision(4)} %`,
      range(points) {
        if (!close) return [0, 1];
        const values = [...points.map((point) => point[1]), diagnostic.chance ?? 0];
        return [0, Math.max(...values) * 1.08 || 1];
      },
    });
    choice(row, "close-up", close, (on) => { close = on; });
    choice(row, "log tokens", chart.log, (on) => { chart.log = on; });
  }
}

function savingsSection() {
  const box = document.getElementById("savings");
  if (!data.savings.length) return;
  box.hidden = false;
  const holder = box.appendChild(html("div", { class: "chart" }));
  let width = 0;
  function draw() {
    width = holder.clientWidth;
    if (!width) return;
    const bars = data.savings;
    const rows = bars.flatMap((each) => [{ head: each.arm, arm: each.arm }, ...each.bars.map((bar) => ({ ...bar, arm: each.arm }))]);
    const narrow = width < 520, left = narrow ? 100 : 190, right = width - 96;
    const height = rows.reduce((sum, each) => sum + (each.head ? 28 : 26), 34);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Saved by each arm" });
    holder.replaceChildren(picture);
    const ends = rows.filter((each) => !each.head && each.value !== null).flatMap((bar) => [bar.value, bar.low ?? 0, bar.high ?? 0]);
    const low = Math.max(-1, Math.min(0, ...ends)), high = Math.min(1, Math.max(0.1, ...ends));
    const x = (value) => left + (Math.min(high, Math.max(low, value)) - low) / (high - low) * (right - left);
    for (const value of ticks(low, high, narrow ? 3 : 6)) {
      picture.append(svg("line", { x1: x(value), x2: x(value), y1: 4, y2: height - 24, stroke: value === 0 ? "var(--soft)" : "var(--grid)" }));
      picture.append(svg("text", { x: x(value), y: height - 8, "text-anchor": "middle" }, minus(`${+(100 * value).toPrecision(3)} %`)));
    }
    let y = 6;
    for (const row of rows) {
      if (row.head) {
        picture.append(svg("text", { x: 0, y: y + 18, style: `fill:${colour(row.arm)};font-weight:600;font-size:14px` }, row.head));
        y += 28;
        continue;
      }
      picture.append(svg("text", { x: 0, y: y + 15 }, narrow ? row.short : row.name));
      if (row.value === null) picture.append(svg("text", { x: x(0) + 8, y: y + 15 }, row.said));
      else {
        const [from, to] = [x(Math.min(0, row.value)), x(Math.max(0, row.value))];
        picture.append(svg("rect", { x: from, y: y + 3, width: Math.max(1, to - from), height: 16, rx: 3, fill: colour(row.arm), opacity: row.strong ? 1 : .55 }));
        if (row.low !== null)
          for (const stroke of ["var(--card)", "var(--ink)"])
            picture.append(svg("path", { d: `M${x(row.low)} ${y + 7}v8m0-4H${x(row.high)}m0-4v8`, fill: "none", stroke, "stroke-width": stroke === "var(--ink)" ? 1.6 : 4 }));
        const end = row.high === null ? Math.max(to, x(0)) : Math.max(x(row.high), to);
        picture.append(svg("text", { x: end + 8, y: y + 15, style: "fill:var(--ink)", class: "halo" }, row.said));
      }
      y += 26;
    }
  }
  redraws.push(draw);
  new ResizeObserver(() => { if (holder.clientWidth !== width) draw(); }).observe(holder);
}

lossSection();
savingsSection();
substitutionSection();
diagnosticSections();
redraw();
