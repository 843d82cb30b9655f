// The page: tabs, the image that is looked at, language and colour scheme.

import { el, latest, say } from "./dom.js";
import { Gone, connect } from "./engine.js";
import { setup as setupInput } from "./input.js";
import { choose, current } from "./words.js";
import * as filters from "./views/filters.js";
import * as layers from "./views/layers.js";
import * as mistakes from "./views/mistakes.js";
import * as network from "./views/network.js";
import * as similar from "./views/similar.js";
import * as training from "./views/training.js";
import * as why from "./views/why.js";

const engine = connect();
const find = (id) => document.getElementById(id);

/** What the parts of the page share. */
const app = {
  engine,
  about: null,
  /** The image that is looked at: the answer to `read` or `sample`, and `origin`. */
  image: null,
  /** Asks the engine; trouble is shown above, and gives null. */
  async ask(question) {
    try {
      const answer = await engine.ask(question);
      trouble(null);
      return answer;
    } catch (error) {
      trouble(error);
      return null;
    }
  },
  trouble,
  className: (index) => app.about.classes[index] ?? String(index),
  setImage(image) {
    app.image = image;
    input.show(image);
    refresh();
  },
  /** Opens an image of the data. */
  async open(split, index) {
    const image = await app.ask({ ask: "sample", split, index });
    if (image) app.setImage({ ...image, origin: split });
  },
  select,
  build,
  /** Opens a model's file, where the engine can. */
  async openModel(file) {
    try {
      await engine.open(file);
    } catch (error) {
      return trouble(error);
    }
    await build();
  },
  async saveModel() {
    try {
      const { name, blob } = await engine.save();
      const link = el("a", { href: URL.createObjectURL(blob), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    } catch (error) {
      trouble(error);
    }
  },
};

/** Ends what the page before a new model listened to. */
let listening = null;
let input = null;
const views = [];
let shown = null;

function trouble(error) {
  const place = find("trouble");
  place.hidden = !error;
  if (error instanceof Gone) say(place, "gone");
  else if (error) {
    delete place.dataset.t;
    place.textContent = error.message ?? String(error);
  }
}

/** Brings the view that is shown up to date with the image. */
const refresh = latest(async () => {
  if (shown?.view.image && app.image) await shown.view.image(app.image);
});

function tab(id, part) {
  const button = el("button", {
    type: "button",
    role: "tab",
    id: `tab-${id}`,
    "aria-controls": `panel-${id}`,
    "aria-selected": "false",
    tabindex: "-1",
    t: id,
    onclick: () => select(id),
  });
  const panel = el("div", { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}`, hidden: true });
  find("tabs").append(button);
  find("panels").append(panel);
  views.push({ id, button, panel, view: part.setup(panel, app) });
}

function select(id) {
  shown?.view.hidden?.();
  for (const one of views) {
    const chosen = one.id === id;
    one.panel.hidden = !chosen;
    one.button.setAttribute("aria-selected", String(chosen));
    one.button.tabIndex = chosen ? 0 : -1;
    if (chosen) shown = one;
  }
  const main = document.querySelector("main");
  main.dataset.tab = id;
  main.classList.toggle("wide", id === "training");
  history.replaceState(null, "", `#${id}`);
  shown.button.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  shown.view.shown?.();
  refresh();
}

function keys(event) {
  const at = views.findIndex((one) => one.button === document.activeElement);
  if (at < 0) return;
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: views.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const one = views[(to + views.length) % views.length];
  select(one.id);
  one.button.focus();
}

/** What the reader chose before, if the browser keeps such things. */
const memory = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      // Private windows may refuse; the choice then lasts as long as the page.
    }
  },
};

function switches() {
  const language = find("language");
  say(language, "other_language");
  language.addEventListener("click", () => {
    choose(current() === "en" ? "ko" : "en");
    memory.set("language", current());
  });
  const scheme = find("scheme");
  const apply = (name) => {
    if (name === "auto") delete document.documentElement.dataset.scheme;
    else document.documentElement.dataset.scheme = name;
    say(scheme, `scheme_${name}`);
    scheme.value = name;
  };
  const order = ["auto", "light", "dark"];
  const known = memory.get("scheme");
  apply(order.includes(known) ? known : "auto");
  scheme.addEventListener("click", () => {
    const next = order[(order.indexOf(scheme.value) + 1) % order.length];
    apply(next);
    memory.set("scheme", next);
  });
}

/** The page around the engine's model. */
async function build(first) {
  const about = await app.ask({ ask: "about" });
  if (!about) return;
  app.about = about;
  app.image = null;
  listening?.abort();
  listening = new AbortController();
  shown?.view.hidden?.();
  shown = null;
  views.length = 0;
  for (const id of ["tabs", "panels", "input"]) find(id).replaceChildren();
  const { name, classes, live, local, data } = about;
  delete find("model").dataset.t;
  find("model").textContent = name;
  document.title = `${name} – Striate`;
  input = setupInput(find("input"), app, listening.signal);
  if (live) tab("training", training);
  tab("layers", layers);
  tab("why", why);
  if (data) tab("similar", similar);
  if (data && classes.length <= 200) tab("mistakes", mistakes);
  tab("filters", filters);
  tab("network", network);
  if (local && !live) tab("training", training);
  choose(current());
  select(views.some((one) => one.id === first) ? first : views[0].id);
  if (data) await app.open("test", 0);
}

async function start() {
  choose(memory.get("language") ?? (navigator.language?.startsWith("ko") ? "ko" : "en"));
  switches();
  say(find("model"), "loading");
  find("tabs").addEventListener("keydown", keys);
  await build(location.hash.slice(1));
  if (app.about) document.body.dataset.ready = "true";
}

start();
