// Which class is taken for which, and the images behind each number.

import { el, percent, picture, say, svg } from "../dom.js";

export function setup(panel, app) {
  const words = el("p", { role: "status" });
  const paper = el("div", { class: "paper" });
  const title = el("h2");
  const images = el("div", { class: "thumbs" });
  const hint = el("p", { class: "faint", t: "open_hint", hidden: true });
  panel.append(words, el("div", { class: "split" }, paper, el("div", {}, title, images, hint)));
  let asked = false;

  async function open(cell) {
    const [row, column] = cell.dataset.cell.split(",").map(Number);
    paper.querySelectorAll(".is-here").forEach((old) => old.classList.remove("is-here"));
    cell.classList.add("is-here");
    const answer = await app.ask({ ask: "cell", row, column });
    if (!answer) return;
    say(title, row === column ? "cell_right" : "cell", {
      row: app.className(row),
      column: app.className(column),
      count: answer.count,
    });
    hint.hidden = !answer.count;
    images.replaceChildren(
      ...answer.images.map(({ index, probability, picture: source }) =>
        el(
          "button",
          { type: "button", onclick: () => (app.open("test", index), app.select("layers")) },
          picture(source, ""),
          el("span", { class: "faint" }, percent(probability)),
        ),
      ),
    );
  }

  return {
    async shown() {
      // A run changes what is taken for what.
      if (asked && !app.about.live) return;
      asked = true;
      say(words, "looking");
      const answer = await app.ask({ ask: "confusion" });
      if (!answer) {
        asked = false;
        return;
      }
      say(words, "matrix", { correct: answer.correct, images: answer.images });
      const drawing = svg(answer.svg);
      drawing.setAttribute("role", "group");
      const cells = [...drawing.querySelectorAll("[data-cell]")];
      cells.forEach((cell) => {
        cell.setAttribute("tabindex", "-1");
        cell.setAttribute("role", "button");
        cell.addEventListener("click", () => open(cell));
        cell.addEventListener("keydown", (event) => keys(event, cell));
      });
      cells[0]?.setAttribute("tabindex", "0");
      paper.replaceChildren(drawing);
      // The commonest mistake first.
      const wrong = cells.filter((cell) => new Set(cell.dataset.cell.split(",")).size > 1);
      const count = (cell) => {
        const [row, column] = cell.dataset.cell.split(",").map(Number);
        return answer.counts[row][column];
      };
      const worst = wrong.reduce((most, cell) => (!most || count(cell) > count(most) ? cell : most), null);
      if (worst) open(worst);
    },
  };

  /** From cell to cell with the arrow keys. */
  function keys(event, cell) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(cell);
      return;
    }
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    let [row, column] = cell.dataset.cell.split(",").map(Number);
    const classes = app.about.classes.length;
    // Empty cells are not there to be focused.
    for (;;) {
      [row, column] = [row + step[0], column + step[1]];
      if (row < 0 || column < 0 || row >= classes || column >= classes) return;
      const next = paper.querySelector(`[data-cell="${row},${column}"]`);
      if (next) {
        cell.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
        return;
      }
    }
  }
}
