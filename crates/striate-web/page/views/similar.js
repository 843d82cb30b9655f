// Training images that the network holds for alike.

import { el, picture, say } from "../dom.js";

export function setup(panel, app) {
  const words = el("p", { role: "status" });
  const images = el("div", { class: "thumbs" });
  panel.append(words, images, el("p", { class: "faint", t: "open_hint" }));

  return {
    async image(image) {
      if (!images.children.length) say(words, "looking");
      const answer = await app.ask({ ask: "similar", pixels: image.pixels });
      if (!answer) return;
      say(words, "similar_are", { layer: answer.layer, among: answer.among });
      images.replaceChildren(
        ...answer.images.map(({ index, label, similarity, picture: source }) =>
          el(
            "button",
            { type: "button", onclick: () => app.open("train", index) },
            picture(source, app.className(label)),
            el("b", {}, app.className(label)),
            el("span", { class: "faint" }, similarity.toFixed(3)),
          ),
        ),
      );
    },
  };
}
