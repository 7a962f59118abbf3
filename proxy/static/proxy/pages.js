// Draws the charts of a page, in the colors of its light or dark theme. The tables below them have the same data.
"use strict";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = [];

function draw(canvas) {
  const { kind, stacked, labels, series } = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
  const axis = { stacked, ticks: { color: color("--body-quiet-color") }, grid: { color: color("--hairline-color") } };
  return new Chart(canvas, {
    type: kind,
    data: {
      labels,
      datasets: series.map(({ label, color: name, data }) => ({
        label, data, backgroundColor: color(name), borderColor: color(name), borderWidth: kind === "line" ? 2 : 0,
        pointRadius: 2, spanGaps: true,
      })),
    },
    options: {
      animation: false, responsive: true, maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      plugins: { legend: { position: "bottom", labels: { color: color("--body-fg"), boxWidth: 12 } } },
      scales: {
        x: { ...axis, grid: { display: false }, ticks: { ...axis.ticks, maxRotation: 0, autoSkipPadding: 12 } },
        y: { ...axis, beginAtZero: true, ticks: { ...axis.ticks, precision: 0 } },
      },
    },
  });
}

function drawAll() {
  while (charts.length) charts.pop().destroy();
  document.querySelectorAll("canvas[data-chart]").forEach((canvas) => charts.push(draw(canvas)));
}

drawAll();
new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
