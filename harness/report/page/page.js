"use strict";
// Tables sort by the column whose heading is pressed; rows that failed stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const wasUp = heading.getAttribute("aria-sort") === "ascending";
      const wasDown = heading.getAttribute("aria-sort") === "descending";
      // Numbers start with the largest, names with the first.
      const numeric = heading.classList.contains("number");
      const up = wasUp ? false : wasDown ? true : !numeric;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell && !(row.classList.contains("failed") && numeric) ? cell.dataset.v : "";
      };
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const bothNumbers = !Number.isNaN(Number(x)) && !Number.isNaN(Number(y));
        const order = bothNumbers ? Number(x) - Number(y) : x.localeCompare(y);
        return up ? order : -order;
      });
      // Lines between runs mean nothing any more.
      rows.forEach((row) => row.classList.remove("first"));
      body.append(...rows);
    });
  });
}
// A memory map's slider lays one step out as a grid: the column of the picture, cut into pieces.
for (const figure of document.querySelectorAll("figure.map")) {
  const image = figure.querySelector("img");
  const slider = figure.querySelector("input");
  const canvas = figure.querySelector("canvas");
  const pieces = 32;
  const draw = () => {
    const column = Number(slider.value);
    const {first, stride} = slider.dataset;
    figure.querySelector("output").textContent = Number(first) + column * Number(stride);
    const share = (column + 0.5) / (Number(slider.max) + 1);
    figure.querySelector(".cursor").style.left = `calc(${100 * share}% - 1px)`;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const columnWidth = image.naturalWidth / (Number(slider.max) + 1);
    const rows = Math.ceil(image.naturalHeight / pieces);
    const width = canvas.width / pieces;
    for (let piece = 0; piece < pieces; piece++) {
      // The lowest addresses are at the foot of the picture.
      const top = image.naturalHeight - (piece + 1) * rows;
      const height = Math.min(rows, rows + top);
      if (height <= 0) break;
      pen.drawImage(image, column * columnWidth, Math.max(0, top), columnWidth, height,
        piece * width, canvas.height * (1 - height / rows),
        width - 1, canvas.height * height / rows);
    }
  };
  slider.addEventListener("input", draw);
  image.decode().then(draw, () => {});
}
// Values follow the pointer over a chart: those at the place along one axis that is nearest to it.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const chart of document.querySelectorAll("svg[data-readout]")) {
  const {along, at, box, heads, headUnit, lines, unit} = JSON.parse(chart.dataset.readout);
  const [left, top, right, foot] = box;
  const rule = document.createElementNS(chart.namespaceURI, "path");
  rule.setAttribute("class", "pointer");
  const hide = () => {
    tip.hidden = true;
    rule.remove();
  };
  chart.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY)
      .matrixTransform(chart.getScreenCTM().inverse());
    if (point.x < left || point.x > right || point.y < top || point.y > foot) return hide();
    const distances = at.map((place) => Math.abs(place - point[along]));
    const nearest = distances.indexOf(Math.min(...distances));
    rule.setAttribute("d", along === "x"
      ? `M${at[nearest]} ${top}V${foot}` : `M${left} ${at[nearest]}H${right}`);
    chart.append(rule);
    const values = Object.entries(lines).map(([name, each]) => `${name}  ${each[nearest]} ${unit}`);
    tip.textContent = [`${heads[nearest]} ${headUnit}`, ...values].join("\n");
    tip.hidden = false;
    const {width, height} = tip.getBoundingClientRect();
    const x = event.clientX + 14, y = event.clientY + 14;
    tip.style.left = `${x + width > innerWidth ? Math.max(0, x - width - 28) : x}px`;
    tip.style.top = `${y + height > innerHeight ? Math.max(0, y - height - 28) : y}px`;
  });
  chart.addEventListener("pointerleave", hide);
}
// The theme follows the system until the button is pressed.
const root = document.documentElement;
const button = document.getElementById("theme");
const dark = () => root.dataset.theme
  ? root.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;
const label = () => {
  button.textContent = dark() ? "Light" : "Dark";
  button.setAttribute("aria-label", dark() ? "Switch to the light theme" : "Switch to the dark theme");
};
button.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  label();
});
label();
