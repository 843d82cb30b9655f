// A run while it goes on.

import { el, modelButtons, percent, picture, say, short, svg } from "../dom.js";
import { Gone } from "../engine.js";

/** Learning rates that suit each optimizer. */
const RATES = { sgd: "0.01", momentum: "0.01", nesterov: "0.01", adagrad: "0.01", rmsprop: "0.001", adam: "0.001" };

/** Between two questions, in milliseconds. */
const PACE = 1000;

export function setup(panel, app) {
  const figure = (t) => {
    const value = el("b", { id: `live-${t}` }, "–");
    figures.append(el("div", {}, el("span", { t }), value));
    return value;
  };
  const figures = el("div", { class: "figures" });
  const [phase, epoch, step, loss, accuracy, held, rate, left, learning] = [
    "phase", "epoch", "step", "loss", "accuracy", "held_out", "rate", "left", "learning_rate",
  ].map(figure);
  const bar = el("progress", { max: "1", value: "0", label: "training" });
  const button = (t, onclick, kind) => el("button", { type: "button", t, id: `live-${t}`, class: kind, onclick });
  const pause = button("pause", () => act("pause"));
  const resume = button("resume", () => act("resume"), "primary");
  const stop = button("stop", reallyStop);
  const message = el("p", { class: "faint", t: "stop_hint" });
  const curves = el("div", { class: "plots" });
  const pulse = el("div", { class: "plots" });
  const filters = el("div", { class: "paper", hidden: true });
  const mistakes = el("div", { class: "thumbs" });
  const none = el("p", { class: "faint", t: "no_mistakes", hidden: true });
  const run = el(
    "div",
    { hidden: !app.about.live },
    el("div", { class: "row" }, pause, resume, stop),
    bar,
    el("p"),
    figures,
    el("p"),
    message,
    curves,
    pulse,
    el("div", { class: "split" }, el("div", {}, el("h2", { t: "filters_now" }), filters), el("div", {}, el("h2", { t: "now_mistaken" }), mistakes, none)),
  );
  const form = app.about.local ? lesson(app) : null;
  if (form) {
    form.hidden = app.about.live;
    panel.append(form);
    say(message, "stop_hint_local");
  }
  panel.append(run);

  let revision = 0;
  let timer = null;
  let asking = false;
  let confirming = null;

  async function act(action) {
    try {
      await app.engine.act(action);
    } catch (error) {
      app.trouble(error);
    }
    look();
  }

  /** The first click asks, the second stops. */
  function reallyStop() {
    if (confirming) {
      clearTimeout(confirming);
      confirming = null;
      say(stop, "stop");
      act("stop");
      return;
    }
    say(stop, "really_stop");
    confirming = setTimeout(() => {
      confirming = null;
      say(stop, "stop");
    }, 4000);
  }

  async function look() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    let over = false;
    try {
      const answer = await app.engine.ask({ ask: "live", since: revision });
      app.trouble(null);
      if (answer.phase) over = show(answer);
      revision = answer.revision;
    } catch (error) {
      app.trouble(error);
      over = error instanceof Gone;
    }
    asking = false;
    if (!over && !panel.hidden) timer = setTimeout(look, PACE);
  }

  function show(answer) {
    say(phase, `phase_${answer.phase}`);
    epoch.textContent = `${answer.epoch} / ${answer.epochs}`;
    step.textContent = `${answer.step.toLocaleString("en")} / ${answer.total_steps.toLocaleString("en")}`;
    loss.textContent = short(answer.loss);
    accuracy.textContent = answer.accuracy === null ? "–" : percent(answer.accuracy);
    const last = answer.history.at(-1);
    const share = last?.validation_accuracy ?? last?.test_accuracy;
    held.textContent = share === undefined || share === null ? "–" : percent(share);
    rate.textContent = Math.round(answer.images_per_second).toLocaleString("en");
    learning.textContent = answer.learning_rate.toPrecision(3);
    const running = ["starting", "running", "paused", "evaluating"].includes(answer.phase);
    if (running && answer.seconds_left !== null) duration(left, answer.seconds_left);
    else {
      delete left.dataset.t;
      left.textContent = "–";
    }
    bar.value = answer.total_steps ? answer.step / answer.total_steps : 0;
    pause.hidden = !running || answer.phase === "paused";
    resume.hidden = answer.phase !== "paused";
    stop.hidden = !running;
    if (answer.message) {
      delete message.dataset.t;
      message.textContent = answer.message;
    } else message.hidden = !running;
    const plots = (list) => list.map((text) => el("div", { class: "paper" }, svg(text)));
    curves.replaceChildren(...plots(answer.curves));
    pulse.replaceChildren(...plots(answer.pulse));
    filters.hidden = !answer.filters;
    if (answer.filters) {
      const image = picture(answer.filters, "");
      image.style.imageRendering = "auto";
      filters.replaceChildren(image);
    }
    none.hidden = answer.mistakes.length > 0 || !answer.probed;
    mistakes.replaceChildren(
      ...answer.mistakes.map((one) =>
        el(
          "button",
          { type: "button", onclick: () => (app.open("test", one.index), app.select("layers")) },
          picture(one.picture, ""),
          say(el("span"), "mistaken_for", {
            label: app.className(one.label),
            predicted: app.className(one.predicted),
            probability: percent(one.probability),
          }),
        ),
      ),
    );
    const over = ["done", "failed"].includes(answer.phase);
    if (form) form.hidden = !over;
    return over;
  }

  return {
    shown: () => app.about.live && look(),
    hidden: () => clearTimeout(timer),
  };
}

/** What is to be trained, and the button that begins. */
function lesson(app) {
  const choice = (t, values, chosen) =>
    el("select", { id: `lesson-${t}` }, ...values.map((value) => el("option", { value, selected: value === chosen }, value.toLocaleString("en"))));
  const number = (t, value, properties) => el("input", { type: "number", id: `lesson-${t}`, value, required: true, ...properties });
  const images = choice("images", [2000, 10000, 60000], 10000);
  const epochs = number("epochs", "3", { min: "1", max: "100", step: "1" });
  const optimizer = choice("optimizer", Object.keys(RATES), "adam");
  const rate = number("learning_rate", RATES.adam, { min: "0.000001", max: "10", step: "any" });
  const seed = number("seed", "0", { min: "0", max: "4294967295", step: "1" });
  optimizer.addEventListener("change", () => (rate.value = RATES[optimizer.value]));
  const begin = el("button", { type: "submit", t: "begin", id: "lesson-begin", class: "primary" });
  const form = el(
    "form",
    { class: "card", id: "lesson" },
    el("p", { t: "lesson_hint" }),
    el(
      "div",
      { class: "row lesson" },
      ...[["images", images], ["epochs", epochs], ["optimizer", optimizer], ["learning_rate", rate], ["seed", seed]].map(([t, field]) =>
        el("label", {}, el("span", { class: "faint", t: `lesson_${t}` }), field),
      ),
    ),
    el("div", { class: "row" }, begin, modelButtons(app)),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    begin.disabled = true;
    try {
      await app.engine.train({
        images: Number(images.value),
        epochs: Number(epochs.value),
        optimizer: optimizer.value,
        learning_rate: Number(rate.value),
        seed: Number(seed.value),
      });
      await app.build("training");
    } catch (error) {
      app.trouble(error);
    }
    begin.disabled = false;
  });
  return form;
}

function duration(place, seconds) {
  const all = Math.round(seconds);
  if (all < 60) return say(place, "seconds", { s: all });
  if (all < 3600) return say(place, "minutes", { m: Math.floor(all / 60), s: all % 60 });
  return say(place, "hours", { h: Math.floor(all / 3600), m: Math.floor((all % 3600) / 60) });
}
