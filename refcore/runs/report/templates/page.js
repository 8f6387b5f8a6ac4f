"use strict";
const { steps, charts } = JSON.parse(document.getElementById("data").textContent);
const figures = [...document.querySelectorAll(".chart")];
const shown = figures.map(figure => [...figure.querySelectorAll(".values b")]);
const last = shown.map(values => values.map(value => value.textContent));
const brief = value => value === null || value === undefined ? "–"
  : Math.abs(value) >= 1000 ? value.toFixed(0) : String(+value.toPrecision(3));
let now = Math.max(0, steps.length - 1);

document.documentElement.classList.add("script");

function point(place) {
  now = Math.max(0, Math.min(steps.length - 1, place));
  figures.forEach((figure, i) => {
    const lines = charts[figure.dataset.chart];
    const x = steps.length > 1 ? 1000 * now / (steps.length - 1) : 500;
    const cursor = figure.querySelector(".cursor"), plot = figure.querySelector(".plot");
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    figure.querySelector(".at").textContent = `step ${steps[now]}`;
    shown[i].forEach((value, line) => { value.textContent = brief(lines[line][now]); });
    plot.setAttribute("aria-valuenow", steps[now]);
    plot.setAttribute("aria-valuetext", `step ${steps[now]}: ${shown[i].map(value => value.textContent).join(", ")}`);
    figure.classList.add("pointing");
  });
}

function leave() {
  if (document.activeElement && document.activeElement.matches(".plot")) return;
  figures.forEach((figure, i) => {
    figure.classList.remove("pointing");
    figure.querySelector(".at").textContent = "";
    shown[i].forEach((value, line) => { value.textContent = last[i][line]; });
  });
}

const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
for (const figure of figures) {
  const plot = figure.querySelector(".plot");
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-valuemin", steps[0]);
  plot.setAttribute("aria-valuemax", steps[steps.length - 1]);
  plot.setAttribute("aria-valuenow", steps[now]);
  plot.addEventListener("pointermove", event => {
    const box = plot.querySelector("svg").getBoundingClientRect();
    point(Math.round((event.clientX - box.left) / box.width * (steps.length - 1)));
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("focus", () => point(now));
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", event => {
    if (event.key in moves) point(now + moves[event.key]);
    else if (event.key === "Home") point(0);
    else if (event.key === "End") point(steps.length - 1);
    else return;
    event.preventDefault();
  });
}
