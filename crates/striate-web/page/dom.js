// Small helpers: elements, words in them, and calls of which only the latest counts.

import { fill } from "./words.js";

/** An element: `el("p", { class: "faint", t: "layers_hint" }, ...children)`. `t` names the words that stand in it. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "t") say(element, value);
    else if (name === "label") say(element, value, {}, "label");
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts words into an element (or its label), in the language of the moment and of later ones. */
export function say(element, key, values = {}, place = "") {
  element.dataset[place ? "tLabel" : "t"] = key;
  element.dataset[place ? "tLabelValues" : "tValues"] = JSON.stringify(values);
  fill(element);
  return element;
}

/** An image whose pixels stay squares. */
export function picture(source, alt = "") {
  return el("img", { src: source, alt, class: "pixels", draggable: "false" });
}

/** Calls `work` with the newest argument, never twice at a time; what came between is left out. */
export function latest(work) {
  let waiting = null;
  let busy = false;
  return async (...given) => {
    waiting = given;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await work(...now);
      }
    } finally {
      busy = false;
    }
  };
}

/** Buttons that open a model's file and keep the model as one, where the engine is here. */
export function modelButtons(app) {
  const file = el("input", { type: "file", accept: ".safetensors,.onnx", hidden: true, class: "model-file" });
  file.addEventListener("change", () => {
    if (file.files[0]) app.openModel(file.files[0]);
    file.value = "";
  });
  const button = (t, onclick) => el("button", { type: "button", t, onclick, class: t });
  return el("div", { class: "row" }, button("open_model", () => file.click()), button("save_model", app.saveModel), file);
}

/** SVG text from the engine as an element; nothing in it is run. */
export function svg(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  for (const foreign of parsed.querySelectorAll("script, foreignObject")) foreign.remove();
  return document.importNode(parsed, true);
}

/** A box over a framed picture: shares of its height and width. */
export function box(frame, [top, bottom], [left, right]) {
  let found = frame.querySelector(".box");
  if (!found) frame.append((found = el("div", { class: "box" })));
  const percent = (share) => `${100 * share}%`;
  Object.assign(found.style, {
    top: percent(top),
    left: percent(left),
    width: percent(right - left),
    height: percent(bottom - top),
  });
  return found;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0.9995 || share < 0.0995 ? 2 : 1)} %`;

/** A number in a few digits. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 100000)) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

/** What the colours mean. */
export function legend(source, low, high) {
  return el("span", { class: "legend" }, el("span", { t: low }), el("img", { src: source, alt: "" }), el("span", { t: high }));
}
