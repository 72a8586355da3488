"use strict";
// Parallel coordinates: a line for each trial, and a range on each axis that trials must pass through to be chosen.
const data = JSON.parse(document.getElementById("data").textContent);
const place = document.getElementById("coordinates");
const WIDTH = 1100, HEIGHT = 340, TOP = 34, BOTTOM = 20, SIDE = 70;
const ranges = new Map();

function element(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function scaleOf(axis, number) {
  const scaled = (value) => (axis.logarithmic ? Math.log10(value) : value);
  const values = data.trials.map((trial) => trial.values[number]).filter((value) => value !== null).map(scaled);
  const low = Math.min(...values), high = Math.max(...values);
  const height = HEIGHT - TOP - BOTTOM;
  return {
    low, high,
    y: (value) => (value === null ? HEIGHT - 4 : TOP + height * (1 - (scaled(value) - low) / (high - low || 1))),
    text: (value) => (axis.labels ? axis.labels[Math.round(value)] : Number((axis.logarithmic ? 10 ** value : value).toPrecision(3))),
  };
}

function colourOf(trial) {
  const share = data.trials.length > 1 ? trial.rank / (data.trials.length - 1) : 0;
  return `hsl(${212 + 30 * share} ${75 - 45 * share}% ${42 + 30 * share}%)`;
}

function isChosen(trial, scales) {
  for (const [number, [from, to]] of ranges) {
    const y = scales[number].y(trial.values[number]);
    if (y < from || y > to) return false;
  }
  return true;
}

function mark(lines, scales) {
  for (const trial of data.trials) {
    const faded = !isChosen(trial, scales);
    lines.get(trial.number).classList.toggle("faded", faded);
    const row = document.querySelector(`tr[data-trial="${trial.number}"]`);
    if (row) row.classList.toggle("faded", faded);
  }
}

function brushable(svg, number, x, lines, scales) {
  const handle = element("rect", { class: "handle", x: x - 14, y: TOP - 4, width: 28, height: HEIGHT - TOP, "data-axis": number }, svg);
  const brush = element("rect", { class: "brush", x: x - 7, width: 14, y: 0, height: 0 }, svg);
  let start = null;
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return ((event.clientY - box.top) * HEIGHT) / box.height;
  };
  const draw = (event) => {
    const [from, to] = [start, at(event)].sort((a, b) => a - b);
    if (to - from < 3) {
      ranges.delete(number);
      brush.setAttribute("height", 0);
    } else {
      ranges.set(number, [from, to]);
      brush.setAttribute("y", from);
      brush.setAttribute("height", to - from);
    }
    mark(lines, scales);
  };
  handle.addEventListener("pointerdown", (event) => {
    start = at(event);
    handle.setPointerCapture(event.pointerId);
    draw(event);
  });
  handle.addEventListener("pointermove", (event) => { if (start !== null) draw(event); });
  handle.addEventListener("pointerup", (event) => { draw(event); start = null; });
}

function drawCoordinates() {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}` }, place);
  const scales = data.axes.map(scaleOf);
  const step = data.axes.length > 1 ? (WIDTH - 2 * SIDE) / (data.axes.length - 1) : 0;
  const lines = new Map();
  for (const trial of [...data.trials].sort((a, b) => b.rank - a.rank)) {
    const points = trial.values.map((value, number) => `${SIDE + step * number},${scales[number].y(value)}`);
    const line = element("polyline", { class: "line", points: points.join(" "), stroke: colourOf(trial) }, svg);
    element("title", {}, line).textContent = `trial ${trial.number}`;
    line.addEventListener("pointerenter", () => line.classList.add("hovered"));
    line.addEventListener("pointerleave", () => line.classList.remove("hovered"));
    lines.set(trial.number, line);
  }
  data.axes.forEach((axis, number) => {
    const x = SIDE + step * number, scale = scales[number];
    element("line", { class: "axis", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }, svg);
    element("text", { x, y: 14 }, svg).textContent = axis.name;
    const ticks = axis.labels ? axis.labels.map((_, place) => place) : [scale.low, (scale.low + scale.high) / 2, scale.high];
    for (const tick of ticks) {
      const y = scale.y(axis.logarithmic ? 10 ** tick : tick);
      element("text", { class: "tick", x: x + 6, y: y + 4 }, svg).textContent = scale.text(tick);
    }
    brushable(svg, number, x, lines, scales);
  });
}

if (place) drawCoordinates();
