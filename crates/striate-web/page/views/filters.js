// The filters of the convolutions.

import { el, picture, say } from "../dom.js";

export function setup(panel, app) {
  const layers = el("select", { id: "filters-layer", onchange: show });
  app.about.convolutions.forEach((name) => layers.append(el("option", { value: name }, name)));
  const words = el("p", { class: "faint" });
  const paper = el("div", { class: "paper" });
  panel.append(el("div", { class: "row" }, el("label", { for: "filters-layer", t: "filters_of" }), layers), words, paper);

  async function show() {
    const answer = await app.ask(layers.value ? { ask: "filters", layer: layers.value } : { ask: "filters" });
    if (!answer) return;
    const [count, channels, rows, columns] = answer.shape;
    say(words, "filters_are", { count, channels, rows, columns });
    const image = picture(answer.picture, answer.name);
    image.style.imageRendering = "auto";
    paper.replaceChildren(image);
  }

  return { shown: show };
}
