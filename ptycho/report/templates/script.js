"use strict";
// Sliders: the upper picture is cut where the slider stands.
for (const slide of document.querySelectorAll(".slide")) {
  const range = slide.querySelector("input");
  range.addEventListener("input", () => slide.style.setProperty("--cut", range.value + "%"));
  for (const select of slide.querySelectorAll("select")) {
    select.addEventListener("change", () => {
      const shown = slide.querySelector(`.${select.name} img`);
      shown.src = document.getElementById(select.value).src;
      shown.style.cssText = select.selectedOptions[0].dataset.place;
      shown.alt = select.selectedOptions[0].textContent;
    });
  }
}
// Zoom: a picture opens over the page; wheel, pinch or keys make it larger, a drag moves it.
const box = document.createElement("dialog");
box.className = "zoom";
const large = document.createElement("img");
const close = document.createElement("button");
close.textContent = "Close";
const hint = document.createElement("p");
box.append(large, hint, close);
document.body.append(box);
let scale = 1, x = 0, y = 0;
const held = new Map();
const place = () => { large.style.transform = `translate(${x}px, ${y}px) scale(${scale})`; };
const grow = (factor, atX, atY) => {
  const next = Math.min(Math.max(scale * factor, 1), 40);
  const area = box.getBoundingClientRect();
  const fromX = atX - area.left - area.width / 2, fromY = atY - area.top - area.height / 2;
  x = fromX - (fromX - x) * next / scale;
  y = fromY - (fromY - y) * next / scale;
  scale = next;
  if (scale === 1) { x = 0; y = 0; }
  place();
};
const centre = () => [innerWidth / 2, innerHeight / 2];
const open = (image) => {
  large.src = image.src;
  large.alt = image.alt;
  large.className = image.className;
  hint.textContent = image.alt + " – wheel, pinch or + and − to zoom, drag to move";
  const fit = Math.min(innerWidth * 0.94 / image.width, innerHeight * 0.84 / image.height);
  large.style.width = image.width * fit + "px";
  scale = 1; x = 0; y = 0;
  place();
  box.showModal();
};
for (const image of document.querySelectorAll(".panel .frame img")) {
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", () => open(image));
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") open(image); });
}
close.addEventListener("click", () => box.close());
box.addEventListener("wheel", (event) => {
  event.preventDefault();
  grow(event.deltaY < 0 ? 1.25 : 0.8, event.clientX, event.clientY);
}, { passive: false });
box.addEventListener("keydown", (event) => {
  if (event.key === "+" || event.key === "=") grow(1.25, ...centre());
  if (event.key === "-") grow(0.8, ...centre());
});
box.addEventListener("pointerdown", (event) => {
  if (event.target === close) return;
  held.set(event.pointerId, event);
  box.setPointerCapture(event.pointerId);
});
box.addEventListener("pointermove", (event) => {
  const before = held.get(event.pointerId);
  if (!before) return;
  if (held.size === 2) {
    const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
    const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    grow(far(event) / Math.max(far(before), 1), other.clientX, other.clientY);
  } else {
    x += event.clientX - before.clientX;
    y += event.clientY - before.clientY;
    place();
  }
  held.set(event.pointerId, event);
});
for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, (event) => held.delete(event.pointerId));
