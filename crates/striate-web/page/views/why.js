// What in the image speaks for a class: Grad-CAM, occlusion, the gradient.

import { el, legend, picture, say, short } from "../dom.js";

export function setup(panel, app) {
  const option = (value, properties, ...children) => el("option", { value, ...properties }, ...children);
  const changed = () => app.image && show(app.image);
  const classes = el("select", { id: "why-class", onchange: changed }, option("", { t: "predicted" }));
  app.about.classes.forEach((name, index) => classes.append(option(index, {}, name)));
  const layers = el("select", { id: "why-layer", onchange: changed }, option("", { t: "last_convolution" }));
  app.about.with_maps.forEach((name) => layers.append(option(name, {}, name)));
  const words = el("p", { role: "status" });
  const cards = el("div", { class: "cards" });
  const layerRow = el("div", { class: "row" }, el("label", { for: "why-layer", t: "cam_layer" }), layers);
  layerRow.hidden = !app.about.convolutions.length;
  panel.append(el("div", { class: "row" }, el("label", { for: "why-class", t: "class" }), classes, layerRow), words, cards);

  async function show(image) {
    const question = { ask: "why", pixels: image.pixels };
    if (classes.value !== "") question.class = Number(classes.value);
    if (layers.value !== "") question.layer = layers.value;
    const answer = await app.ask(question);
    if (!answer) return;
    say(words, "score", { class: app.className(answer.class), score: short(answer.score) });
    cards.replaceChildren(
      ...answer.views.map(({ view, over, map, about }) => {
        const values = { ...about, reach: short(about.reach) };
        const { heat, over: colours } = app.about.legends;
        return el(
          "div",
          { class: "card" },
          el("h3", { t: view }),
          el("div", { class: "pair" }, picture(over), picture(map)),
          say(el("p", { class: "faint" }), `about_${view}`, values),
          view === "grad-cam" ? legend(heat, "nothing", "most") : legend(colours, "less", "more"),
        );
      }),
    );
  }

  return { image: show };
}
