// Every layer's output; and of any number in it, what it was made of.

import { box, el, latest, legend, picture, say, short } from "../dom.js";

export function setup(panel, app) {
  const list = el("div");
  const worked = el("div", { class: "card", id: "worked" }, el("h2", { t: "worked" }), el("p", { class: "faint", t: "layers_hint" }));
  panel.append(
    el("p", {}, legend(app.about.legends.signed, "negative", "positive")),
    el("div", { class: "inside" }, list, worked),
  );
  let layers = [];

  /** The number that is looked at: layer, map, row and column. */
  let here = null;

  const look = latest(async () => {
    if (!here || !app.image) return;
    const { layer, map, row, column } = here;
    const answer = await app.ask({
      ask: "worked",
      pixels: app.image.pixels,
      layer: layer.name,
      at: layer.columns ? [row * layer.columns + column, 0, 0] : [map, row, column],
    });
    if (answer) worked.replaceChildren(...written(answer, layer, app));
  });

  function point(layer, map, row, column) {
    const [channels, height, width] = layer.shape;
    if (layer.columns && row * layer.columns + column >= channels) return;
    document.querySelectorAll(".map.is-here").forEach((old) => {
      old.classList.remove("is-here");
      old.querySelector(".box")?.remove();
    });
    here = { layer, map, row, column };
    const element = layer.elements[layer.columns ? 0 : map];
    const [rows, columns] = layer.columns ? [Math.ceil(channels / layer.columns), layer.columns] : [height, width];
    element.classList.add("is-here");
    box(element, [row / rows, (row + 1) / rows], [column / columns, (column + 1) / columns]);
    look();
  }

  function section(data) {
    const layer = { name: data.layer, shape: data.shape, columns: data.columns, elements: [], images: [] };
    const [channels, height, width] = data.shape;
    const [rows, columns] = data.columns ? [Math.ceil(channels / data.columns), data.columns] : [height, width];
    const maps = el("div", { class: "maps", tabindex: "0", role: "group" });
    say(maps, "layer_maps", { layer: data.layer, count: channels }, "label");
    data.maps.forEach((one, at) => {
      const image = picture(one.picture);
      const element = el("div", { class: data.columns ? "map vector" : "map" }, image);
      const move = (event) => {
        const area = image.getBoundingClientRect();
        const along = (where, from, size, count) => Math.min(Math.max(Math.floor(((where - from) / size) * count), 0), count - 1);
        point(layer, at, along(event.clientY, area.top, area.height, rows), along(event.clientX, area.left, area.width, columns));
      };
      element.addEventListener("pointermove", move);
      element.addEventListener("pointerdown", move);
      layer.elements.push(element);
      layer.images.push(image);
      maps.append(element);
    });
    maps.addEventListener("keydown", (event) => {
      const at = here?.layer === layer ? here : { map: 0, row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
      const step = { ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], "[": [-1, 0, 0], "]": [1, 0, 0], Enter: [0, 0, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
      point(layer, within(at.map + step[0], layer.elements.length), within(at.row + step[1], rows), within(at.column + step[2], columns));
    });
    const shape = height * width === 1 ? String(channels) : data.shape.join(" x ");
    const title = el("summary", {}, el("h3", {}, data.layer, " ", el("small", {}, `${data.kind}, ${shape}`)));
    const card = el("details", { class: data.maps.length > 32 ? "card many" : "card", open: true }, title, maps);
    if (data.left_out) card.append(say(el("p", { class: "faint" }), "left_out", { count: data.left_out }));
    return [layer, card];
  }

  return {
    async image(image) {
      const answer = await app.ask({ ask: "maps", pixels: image.pixels });
      if (!answer) return;
      if (layers.length === answer.layers.length) {
        // The same network: only the pictures change, and what is pointed at stays.
        answer.layers.forEach((data, at) => data.maps.forEach((one, map) => (layers[at].images[map].src = one.picture)));
      } else {
        const made = answer.layers.map(section);
        layers = made.map(([layer]) => layer);
        list.replaceChildren(...made.map(([, card]) => card));
      }
      if (here) look();
      else if (layers[0]) {
        const [, height, width] = layers[0].shape;
        point(layers[0], 0, Math.floor(height / 2), Math.floor(width / 2));
      }
    },
  };
}

/** A worked number, in elements. */
function written(answer, layer, app) {
  const [map, row, column] = answer.at;
  const { work, value } = answer;
  const title = layer.columns
    ? say(el("h3"), "worked_feature", { layer: answer.layer, map })
    : say(el("h3"), "worked_at", { layer: answer.layer, map, row, column });
  const { rows, columns } = answer.field;
  const [, height, width] = app.about.input;
  const frame = el("div", { class: "frame", style: { width: "112px" } }, picture(app.image.picture));
  box(frame, rows.map((at) => at / height), columns.map((at) => at / width));
  const field = say(el("p", { class: "faint" }), "field", { rows: rows[1] - rows[0], columns: columns[1] - columns[0] });
  const parts = [el("h2", { t: "worked" }), title, el("div", { class: "seen" }, frame, field)];
  const total = (key, values) => el("p", { class: "total" }, say(el("b"), key, values));
  if (work.kind === "sum") {
    for (const term of work.terms) {
      parts.push(
        el(
          "div",
          { class: "sum" },
          el("span", {}, grid(term.window, work.all > 1 ? "window_of" : "window", { map: term.channel })),
          el("span", {}, el("i", { class: "sign" }, "×"), grid(term.weights, "weights")),
          el("span", {}, el("i", { class: "sign" }, "="), grid(term.products, "products")),
          say(el("b"), "sum_is", { sum: short(term.sum) }),
        ),
      );
    }
    parts.push(sumOf(work, value));
  } else if (work.kind === "list") {
    const line = (term) =>
      el("tr", {}, ...[term.channel, short(term.input), short(term.weight), short(term.sum)].map((text) => el("td", {}, String(text))));
    const head = el("tr", {}, el("th", {}, "#"), ...["input_number", "weight", "product"].map((t) => el("th", { t })));
    parts.push(el("table", { class: "list" }, head, ...work.terms.map(line)), sumOf(work, value));
  } else if (work.kind === "point") {
    parts.push(total("point", { inputs: work.inputs.map(short).join(" + "), value: short(value) }));
  } else {
    parts.push(el("div", { class: "sum" }, grid(work.window, "window")), total(work.kind === "max" ? "largest" : "mean", { value: short(value) }));
  }
  return parts;
}

/** Everything that is added up. */
function sumOf(work, value) {
  const line = el("p", { class: "total" }, work.terms.map((term) => short(term.sum)).join(" + "));
  const left = work.all - work.terms.length;
  if (left > 0) line.append(" + ", say(el("span"), "rest", { count: left, sum: short(work.rest) }));
  line.append(" + ", say(el("span"), "bias", { bias: short(work.bias) }), " ", say(el("b"), "value", { value: short(value) }));
  return line;
}

/** Numbers in their colours, or a picture of many. */
function grid(data, caption, values = {}) {
  const figure = el("figure");
  if (data.cells) {
    const cell = ([value, color]) => {
      const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
      const ink = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#202020" : "#fff";
      return el("td", { style: { background: color, color: ink } }, value === null ? "" : value.toFixed(2));
    };
    figure.append(el("table", { class: "numbers" }, ...data.cells.map((row) => el("tr", {}, ...row.map(cell)))));
  } else {
    figure.append(picture(data.picture));
  }
  figure.append(say(el("figcaption"), caption, values));
  return figure;
}
