// The network as a diagram, and as a table for those who would rather read.

import { el, modelButtons, svg } from "../dom.js";

export function setup(panel, app) {
  const paper = el("div", { class: "paper" });
  const table = el("div", { class: "scroll" });
  if (app.about.local) panel.append(el("p", { class: "faint", t: "model_hint" }), modelButtons(app));
  panel.append(el("div", { class: "split" }, paper, table));
  let asked = false;

  return {
    async shown() {
      if (asked) return;
      const answer = await app.ask({ ask: "diagram" });
      if (!answer) return;
      asked = true;
      paper.replaceChildren(svg(answer.svg));
      const sizes = (shape) => (shape[1] * shape[2] === 1 ? String(shape[0]) : shape.join(" x "));
      const row = (layer) =>
        el(
          "tr",
          {},
          el("td", {}, layer.name),
          el("td", {}, sizes(layer.output)),
          el("td", {}, layer.parameters.toLocaleString("en")),
          el("td", {}, layer.receptive_field.join(" x ")),
        );
      const head = el("tr", {}, ...["layer", "shape", "parameters", "receptive"].map((t) => el("th", { t })));
      table.replaceChildren(el("table", { class: "list" }, head, ...answer.summary.layers.map(row)));
    },
  };
}
