"use strict";
const byId = (id) => document.getElementById(id);
const short = (value) => Number(value.toPrecision(4)).toString();

// Curves over steps; a logarithmic scale where all values are positive.
function drawCurves(curves, step) {
  const canvas = byId("curves"), pen = canvas.getContext("2d");
  const shown = curves.filter((curve) => curve.points.length);
  canvas.hidden = !shown.length;
  if (!shown.length) return;
  const all = shown.flatMap((curve) => curve.points.map((p) => p[1]));
  const log = all.every((v) => v > 0), scale = log ? Math.log : (v) => v;
  const reach = (a, v) => [Math.min(a[0], v), Math.max(a[1], v)];
  const [low, high] = all.reduce(reach, [Infinity, -Infinity]);
  const last = shown.flatMap((curve) => curve.points.map((p) => p[0])).reduce((a, v) => Math.max(a, v), 1);
  const colours = [getComputedStyle(document.body).getPropertyValue("--main"), "#d1603d", "#3c8d5a"];
  const left = 86, right = 12, top = 14, bottom = 34, ink = getComputedStyle(document.body).color;
  const x = (n) => left + (last > 1 ? (n - 1) / (last - 1) : 0.5) * (canvas.width - left - right);
  const y = (v) => canvas.height - bottom - (scale(v) - scale(low)) / (scale(high) - scale(low) || 1) * (canvas.height - top - bottom);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = ink; pen.font = "15px system-ui, sans-serif"; pen.textAlign = "right"; pen.textBaseline = "middle";
  const middle = log ? Math.sqrt(low * high) : (low + high) / 2;
  for (const value of high > low ? [low, middle, high] : [low]) {
    pen.fillText(short(value), left - 8, y(value));
    pen.globalAlpha = 0.15; pen.fillRect(left, y(value), canvas.width - left - right, 1); pen.globalAlpha = 1;
  }
  pen.textAlign = "left"; pen.fillText("1", left, canvas.height - 14);
  pen.textAlign = "right"; pen.fillText(`${step} ${last}`, canvas.width - right, canvas.height - 14);
  shown.forEach((curve, n) => {
    pen.strokeStyle = pen.fillStyle = colours[n % colours.length]; pen.lineWidth = 2.5; pen.beginPath();
    curve.points.forEach(([step, value], k) => k ? pen.lineTo(x(step), y(value)) : pen.moveTo(x(step), y(value)));
    pen.stroke();
    pen.beginPath(); pen.arc(x(curve.points.at(-1)[0]), y(curve.points.at(-1)[1]), 4, 0, 7); pen.fill();
    pen.textAlign = "right"; pen.fillText(curve.label, canvas.width - right - 8, top + 10 + 20 * n);
  });
  byId("curves-text").textContent = `${step} ${last}: ` + shown.map((curve) => `${curve.label} ${short(curve.points.at(-1)[1])}`).join(", ");
}

let written = 0;
async function look() {
  let told;
  try {
    told = await (await fetch("now")).json();
  } catch {
    byId("state").textContent = "The command has ended: this is what was seen last.";
    return;
  }
  byId("name").textContent = told.name;
  document.title = `${told.name}: ${told.state || "no record yet"} – ptycho watch`;
  byId("state").textContent = (told.state || "no record yet") + (told.error ? `: ${told.error}` : "");
  byId("left-out").textContent = told.left_out.length ? `Frames left out: ${told.left_out.join("; ")}` : "";
  drawCurves(told.curves, told.step);
  if (told.picture && told.written_ms !== written) {
    written = told.written_ms;
    byId("picture").src = "picture/" + (written % 1e9);
    byId("picture").hidden = false;
    byId("picture").className = told.picture === "preview.png" ? "pixels" : "";
    byId("picture-text").textContent = `${told.picture}, ${new Date(written).toLocaleTimeString()}`;
  }
  document.body.dataset.state = told.state;
  if (!told.ended) setTimeout(look, told.every_ms);
}
look();
