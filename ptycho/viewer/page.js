"use strict";
const byId = (id) => document.getElementById(id);
const fetched = async (route, Kind) => {
  const answer = await fetch(route);
  return answer.ok ? new Kind(await answer.arrayBuffer()) : null;
};
const finite = (values) => Array.from(values).filter(Number.isFinite);
const lowest = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const highest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
// The values that all but a share of each end lie between.
function spread(values, share) {
  const sorted = Float64Array.from(finite(values)).sort(), last = sorted.length - 1;
  return [sorted[Math.floor(share * last)], sorted[Math.ceil((1 - share) * last)]];
}
// Phases along a line without jumps of a turn; where nothing is known they start anew.
function unwrapped(values) {
  let turns = 0, before = NaN;
  return values.map((value) => {
    if (!Number.isFinite(before)) turns = 0;
    else if (Number.isFinite(value)) turns -= Math.round((value - before) / (2 * Math.PI));
    before = value;
    return value + 2 * Math.PI * turns;
  });
}
const short = (value) => value === 0 || !Number.isFinite(value) ? String(value) : Number(value.toPrecision(4)).toString();

// Values in colours, as a canvas of one pixel a value; what is not known stays transparent.
function coloured(values, width, height, map, low, high, log) {
  const made = new OffscreenCanvas(width, height), pen = made.getContext("2d");
  const picture = pen.createImageData(width, height);
  const scale = log ? Math.log : (v) => v, a = scale(low), b = scale(high);
  values.forEach((value, n) => {
    if (!Number.isFinite(value)) return;
    const share = Math.min(Math.max((scale(Math.max(value, log ? low : value)) - a) / (b - a || 1), 0), 1);
    const at = 3 * Math.round(255 * share);
    picture.data.set([map[at], map[at + 1], map[at + 2], 255], 4 * n);
  });
  pen.putImageData(picture, 0, 0);
  return made;
}
function drawn(canvas, picture) {
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return pen;
}
// Where a pointer is, in pixels of the canvas' own grid.
function spot(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
}
function nearest(points, x, y) {
  let best = 0, far = Infinity;
  points.forEach(([a, b], n) => {
    const d = (a - x) ** 2 + (b - y) ** 2;
    if (d < far) { far = d; best = n; }
  });
  return best;
}

// A drag goes on outside of the canvas; only real pointers can be held.
const hold = (canvas, event) => { if (event.isTrusted) canvas.setPointerCapture(event.pointerId); };

let about, chosen = 0, onChosen = () => {};

// --- the scan -----------------------------------------------------------------------------------------------
async function showScan() {
  const { N, count, mean_of, marked, left_out, frames } = about.scan, maps = about.maps, points = about.positions;
  byId("scan-part").hidden = false;
  const row = byId("row");
  row.max = count - 1;
  const mean = await fetched("mean", Float32Array);
  if (mean_of < count) byId("mean-text").textContent += ` The mean is of ${mean_of} patterns, evenly over the scan.`;
  const lit = finite(mean).filter((v) => v > 0);
  const high = lit.length ? lit.reduce((a, b) => Math.max(a, b)) : 1;
  const low = lit.length ? Math.max(lit.reduce((a, b) => Math.min(a, b)), high * 1e-6) : high * 1e-6;

  const places = byId("places"), xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const least = [lowest(xs), lowest(ys)];
  const scale = (places.width - 20) / Math.max(highest(xs) - least[0], highest(ys) - least[1], 1e-9);
  const put = (p) => [10 + (p[0] - least[0]) * scale, 10 + (p[1] - least[1]) * scale];
  // Drawn once: of many thousand positions only the chosen one moves.
  const dots = new OffscreenCanvas(places.width, places.height), dotPen = dots.getContext("2d");
  const r = about.image && about.image.r, radius = Math.min(3, Math.max(1, 120 / Math.sqrt(points.length)));
  const top = r ? highest(finite(r)) : 1, bottom = r ? lowest(finite(r)) : 0;
  byId("frames-text").textContent = frames.join(". ");
  points.forEach((p, n) => {
    const at = 3 * Math.round(255 * (r ? (r[n] - bottom) / (top - bottom || 1) : 0.4));
    // Grey: left out of the run.
    dotPen.fillStyle = n in left_out ? "#9a9a9a" : `rgb(${maps.phase[at]},${maps.phase[at + 1]},${maps.phase[at + 2]})`;
    dotPen.beginPath(); dotPen.arc(...put(p), radius, 0, 7); dotPen.fill();
  });
  dotPen.strokeStyle = "#9a9a9a"; dotPen.lineWidth = 1.5;
  for (const n of marked) { dotPen.beginPath(); dotPen.arc(...put(points[n]), radius + 2.5, 0, 7); dotPen.stroke(); }
  const drawPlaces = () => {
    const pen = places.getContext("2d");
    pen.clearRect(0, 0, places.width, places.height);
    pen.drawImage(dots, 0, 0);
    pen.strokeStyle = "#d1603d"; pen.lineWidth = 2.5;
    pen.beginPath(); pen.arc(...put(points[chosen]), 7, 0, 7); pen.stroke();
  };
  let asked = 0;
  onChosen = async () => {
    const now = ++asked;
    row.value = chosen;
    byId("row-text").textContent = `${chosen} of ${count - 1}`;
    drawPlaces();
    const [seen, model] = await Promise.all([fetched("pattern/" + chosen, Float32Array), about.image ? fetched("predicted/" + chosen, Float32Array) : null]);
    if (now !== asked || !seen) return;
    const top = Math.max(finite(seen).reduce((a, b) => Math.max(a, b), 1), 2);
    drawn(byId("pattern"), coloured(seen, N, N, maps.counts, 0.5, top, true));
    const total = finite(seen).reduce((a, b) => a + b, 0), [x, y] = points[chosen];
    const value = about.image && about.image.r ? about.image.r[chosen] : null;
    const r = (value === null ? "" : `, R ${short(value)}`) + (chosen in left_out ? `; left out of the run: ${left_out[chosen]}` : "") + (marked.includes(chosen) ? "; marked as bad in the file" : "");
    byId("pattern-text").textContent = `x ${short(x)} px, y ${short(y)} px, ${short(total)} counts, brightest ${short(top)}${r}`;
    byId("against").hidden = !model;
    if (!model) return;
    drawn(byId("predicted"), coloured(model, N, N, maps.counts, 0.5, top, true));
    const error = model.map((v, n) => Math.sqrt(v) - Math.sqrt(seen[n]));
    const reach = Math.max(finite(error).map(Math.abs).sort((a, b) => a - b)[Math.floor(0.998 * finite(error).length)] || 1, 1e-6);
    drawn(byId("difference"), coloured(error, N, N, maps.signed, -reach, reach, false));
  };
  row.addEventListener("input", () => { chosen = Number(row.value); onChosen(); redraw(); });
  places.addEventListener("pointerdown", (event) => {
    const [x, y] = spot(places, event);
    chosen = nearest(points.map(put), x, y); onChosen(); redraw();
  });

  // Bad pixels, drawn on the mean pattern.
  const canvas = byId("mean"), mask = new Uint8Array(N * N);
  const base = coloured(mean, N, N, maps.counts, low, high, true);
  const drawMean = () => {
    const pen = drawn(canvas, base), side = canvas.width / N;
    pen.fillStyle = "#3fd0ff";
    mask.forEach((on, n) => { if (on) pen.fillRect((n % N) * side, Math.floor(n / N) * side, side, side); });
  };
  const paint = (event) => {
    const [x, y] = spot(canvas, event).map((v) => Math.floor(v * N / canvas.width));
    const radius = Number(byId("radius").value), value = byId("erase").checked ? 0 : 1;
    for (let j = Math.max(y - radius, 0); j <= Math.min(y + radius, N - 1); j++) {
      for (let i = Math.max(x - radius, 0); i <= Math.min(x + radius, N - 1); i++) {
        if ((i - x) ** 2 + (j - y) ** 2 <= radius ** 2 + 0.5) mask[j * N + i] = value;
      }
    }
    drawMean();
  };
  canvas.addEventListener("pointerdown", (event) => { hold(canvas, event); paint(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) paint(event); });
  byId("radius").addEventListener("input", () => { byId("radius-text").textContent = byId("radius").value + " px"; });
  byId("clear").addEventListener("click", () => { mask.fill(0); drawMean(); });
  byId("save").addEventListener("click", async () => {
    const answer = await fetch("mask", { method: "POST", body: mask, headers: { "Content-Type": "application/octet-stream" } });
    const told = answer.ok ? await answer.json() : null;
    byId("saved").textContent = told ? `${told.pixels} bad pixels written to ${told.path}; use it with --bad_pixels` : `not saved: ${await answer.text()}`;
  });
  drawMean();
  await onChosen();
}

// --- the image ----------------------------------------------------------------------------------------------
let redraw = () => {};
async function showImage() {
  const { width, height, corner, limits, r, r_map } = about.image, maps = about.maps;
  byId("image-part").hidden = false;
  byId("r-mode").hidden = !r;
  const [amplitude, phase, colours] = await Promise.all([fetched("amplitude", Float32Array), fetched("phase", Float32Array), fetched("complex", Uint8ClampedArray)]);
  const both = new OffscreenCanvas(width, height);
  both.getContext("2d").putImageData(new ImageData(colours, width, height), 0, 0);
  const pictures = {
    amplitude: coloured(amplitude, width, height, maps.gray, ...limits[0], false),
    phase: coloured(phase, width, height, maps.phase, ...limits[1], false),
    complex: both,
  };
  pictures.r = pictures.amplitude;
  if (r_map) {
    const values = await fetched("r_map", Float32Array);
    pictures.r = coloured(values, r_map[1], r_map[0], maps.phase, ...spread(values, 0.005), false);
  }
  const canvas = byId("image"), pen = canvas.getContext("2d");
  const fit = Math.min(canvas.width / width, canvas.height / height);
  let mode = "amplitude", scale = fit, left = 0, top = 0, line = null, held = null;
  const toImage = ([x, y]) => [(x - left) / scale, (y - top) / scale];
  const toCanvas = (x, y) => [left + x * scale, top + y * scale];
  const whole = () => { scale = fit; left = (canvas.width - width * fit) / 2; top = (canvas.height - height * fit) / 2; redraw(); };
  redraw = () => {
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(pictures[mode], left, top, width * scale, height * scale);
    const place = ([x, y]) => toCanvas(x - corner[0] + 0.5, y - corner[1] + 0.5);
    if (mode === "r" && !r_map) {
      const high = highest(finite(r)), low = lowest(finite(r));
      about.positions.map(place).forEach((p, n) => {
        if (r[n] === null) return;
        const at = 3 * Math.round(255 * (r[n] - low) / (high - low || 1));
        pen.fillStyle = `rgb(${maps.phase[at]},${maps.phase[at + 1]},${maps.phase[at + 2]})`;
        pen.beginPath(); pen.arc(...p, 5, 0, 7); pen.fill();
      });
    }
    if (about.positions.length) { pen.strokeStyle = "#d1603d"; pen.lineWidth = 2.5; pen.beginPath(); pen.arc(...place(about.positions[chosen]), 8, 0, 7); pen.stroke(); }
    if (line) { pen.strokeStyle = "#3fd0ff"; pen.lineWidth = 2; pen.beginPath(); pen.moveTo(...toCanvas(...line[0])); pen.lineTo(...toCanvas(...line[1])); pen.stroke(); }
    for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    showBar();
  };
  const showBar = () => {
    const step = about.pixel_um || 1, seen = canvas.width / scale * step, raw = seen / 4;
    const power = 10 ** Math.floor(Math.log10(raw)), head = [5, 2, 1].find((h) => h * power <= raw) || 1;
    const length = head * power;
    byId("bar").style.width = 100 * length / seen + "%";
    byId("bar").textContent = about.pixel_um ? (length < 0.1 ? short(length * 1000) + " nm" : short(length) + " µm") : short(length) + " px";
  };
  const showProfile = () => {
    const plot = byId("profile"), ink = plot.getContext("2d");
    ink.clearRect(0, 0, plot.width, plot.height);
    plot.hidden = !line;
    if (!line) return;
    const [[x0, y0], [x1, y1]] = line, length = Math.hypot(x1 - x0, y1 - y0), points = Math.max(Math.round(2 * length), 2);
    const source = mode === "phase" ? phase : amplitude, what = mode === "phase" ? "phase, unwrapped, / rad" : "amplitude";
    let values = [];
    for (let n = 0; n < points; n++) {
      const x = Math.floor(x0 + (x1 - x0) * n / (points - 1)), y = Math.floor(y0 + (y1 - y0) * n / (points - 1));
      values.push(x >= 0 && y >= 0 && x < width && y < height ? source[y * width + x] : NaN);
    }
    if (mode === "phase") values = unwrapped(values);
    const known = finite(values);
    if (!known.length) { byId("profile-text").textContent = "The line crosses nothing that is shown."; return; }
    const low = lowest(known), high = highest(known);
    ink.strokeStyle = getComputedStyle(document.body).getPropertyValue("--main") || "#1b6ca8"; ink.lineWidth = 2; ink.beginPath();
    let up = true;
    values.forEach((v, n) => {
      if (!Number.isFinite(v)) { up = true; return; }
      const at = [n / (points - 1) * (plot.width - 8) + 4, plot.height - 6 - (v - low) / (high - low || 1) * (plot.height - 12)];
      if (up) ink.moveTo(...at); else ink.lineTo(...at);
      up = false;
    });
    ink.stroke();
    const far = about.pixel_um ? `${short(length * about.pixel_um)} µm` : `${short(length)} px`;
    byId("profile-text").textContent = `${what} over ${far}: ${short(low)} to ${short(high)}`;
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = spot(canvas, event), next = Math.min(Math.max(scale * (event.deltaY < 0 ? 1.25 : 0.8), fit), 60 * fit);
    left = x - (x - left) * next / scale; top = y - (y - top) * next / scale; scale = next;
    if (scale === fit) whole(); else redraw();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    hold(canvas, event);
    const at = spot(canvas, event);
    held = { at, moved: false, draws: event.shiftKey };
    if (event.shiftKey) line = [toImage(at), toImage(at)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = spot(canvas, event), [x, y] = toImage(at).map(Math.floor);
    if (x >= 0 && y >= 0 && x < width && y < height) {
      const n = y * width + x;
      byId("under").textContent = `x ${short(x + corner[0])} px, y ${short(y + corner[1])} px: amplitude ${short(amplitude[n])}, phase ${short(phase[n])} rad`;
    }
    if (!held) return;
    if (Math.hypot(at[0] - held.at[0], at[1] - held.at[1]) > 4) held.moved = true;
    if (held.draws) { line[1] = toImage(at); showProfile(); }
    else if (held.moved) { left += at[0] - held.at[0]; top += at[1] - held.at[1]; held.at = at; }
    redraw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.moved && !held.draws && about.positions.length) {
      const [x, y] = toImage(spot(canvas, event));
      chosen = nearest(about.positions, x + corner[0] - 0.5, y + corner[1] - 0.5);
      onChosen(); redraw();
    }
    held = null;
  });
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => { mode = button.dataset.mode; redraw(); showProfile(); });
  }
  byId("whole").addEventListener("click", whole);
  whole();
}

(async () => {
  about = await (await fetch("about")).json();
  byId("name").textContent = about.name;
  document.title = about.name + " – ptycho view";
  byId("notes").textContent = about.notes.join("; ");
  if (about.image) await showImage();
  if (about.scan) await showScan();
  document.body.dataset.ready = "yes";
})();
