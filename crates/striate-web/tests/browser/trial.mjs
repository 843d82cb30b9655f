// The page in a real browser: draws a 3 and sees 3 win, opens every tab, watches a short training, at desktop and phone width, in
// light and dark, in both languages. Fails on any error in the console and on any request beyond the server.
//
//     npm install --prefix crates/striate-web/tests/browser
//     node crates/striate-web/tests/browser/trial.mjs RUN [--striate target/release/striate] [--chromium /usr/bin/chromium]
//         [--pictures DIR] [--address http://127.0.0.1:PORT/]
//     node crates/striate-web/tests/browser/trial.mjs --site DIR [--chromium ...] [--pictures DIR]
//
// RUN is a run directory of a model trained on MNIST. --pictures keeps a screenshot of every tab. --address looks at a server
// that is there already (and watches no training). --site tries a static site behind Python's http.server: the same, and a
// training in the page itself, whose model is downloaded and opened again.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    striate: { type: "string", default: join(process.env.CARGO_TARGET_DIR ?? "target", "release/striate") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    pictures: { type: "string" },
    address: { type: "string" },
    site: { type: "string" },
  },
});
const [run] = positionals;
if (options.pictures) mkdirSync(options.pictures, { recursive: true });

const ADDRESS = /http:\/\/127\.0\.0\.1:\d+\//;

/** Starts a command that prints its address; gives that and how to end it. */
function start(command, parameters) {
  const child = spawn(command, parameters, { stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((done) => child.on("exit", done));
  let text = "";
  const url = new Promise((found, failed) => {
    const look = (data) => {
      text += data;
      const match = text.match(ADDRESS);
      if (match) found(match[0]);
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    child.on("exit", () => failed(new Error(`${parameters.join(" ")} ended: ${text}`)));
  });
  return { url, end: () => (child.kill("SIGINT"), ended) };
}

const browser = await chromium.launch({ executablePath: options.chromium, args: ["--no-sandbox"] });

/** A page that complains of everything that is not as it should be. */
async function open(url, { width = 1280, height = 900, scheme = "light", language = "en-GB", touch = false }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, locale: language, hasTouch: touch });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(new URL(url).origin) && !to.startsWith("data:") && !to.startsWith("blob:")) complaints.push(`asks ${to}`);
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready]");
  const clean = async () => {
    assert.deepEqual(complaints, []);
    assert.equal(await page.locator("#trouble").isVisible(), false);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `the page is ${wide} pixels wider than the window`);
    await context.close();
  };
  return { page, clean };
}

async function shoot(page, name) {
  if (!options.pictures) return;
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(options.pictures, `${name}.png`), fullPage: true });
}

/** A 3 as a hand draws it. */
async function drawThree(page) {
  const area = await page.locator("#pad").boundingBox();
  const at = (x, y) => [area.x + area.width * x, area.y + area.height * y];
  const arc = (y, radius) =>
    Array.from({ length: 15 }, (_, step) => {
      const angle = -2.6 + (step / 14) * 4.2;
      return at(0.48 + radius * Math.cos(angle), y + radius * Math.sin(angle));
    });
  const points = [...arc(0.33, 0.15), ...arc(0.66, 0.18).slice(3), at(0.34, 0.8)];
  await page.mouse.move(...points[0]);
  await page.mouse.down();
  for (const point of points) await page.mouse.move(...point);
  await page.mouse.up();
}

async function tab(page, id) {
  await page.locator(`#tab-${id}`).click();
  const panel = page.locator(`#panel-${id}`);
  await panel.waitFor();
  return panel;
}

async function looksInside(url, name, settings) {
  const { page, clean } = await open(url, settings);
  await page.locator("#input-clear").click();
  await drawThree(page);
  const best = page.locator(".bars li.best > span").first();
  await page.waitForFunction(() => document.querySelector(".bars li.best > span")?.textContent === "3", null, { timeout: 20000 });
  assert.equal(await best.textContent(), "3");

  const layers = await tab(page, "layers");
  const map = layers.locator(".map img").nth(3);
  // At the top, where the panel at the bottom of a phone is not before it.
  await map.evaluate((element) => element.scrollIntoView({ block: "start" }));
  const area = await map.boundingBox();
  await page.mouse.move(area.x + area.width / 2, area.y + area.height / 2);
  await page.waitForFunction(() => /map 3|맵 3/.test(document.querySelector("#worked h3")?.textContent ?? ""));
  assert.equal(await layers.locator("#worked table.numbers").count(), 3);
  // With the keyboard one map further.
  await layers.locator(".maps").first().focus();
  await page.keyboard.press("]");
  await page.waitForFunction(() => /map 4|맵 4/.test(document.querySelector("#worked h3").textContent));
  await shoot(page, `${name}-layers`);

  const why = await tab(page, "why");
  await why.locator(".card").nth(2).waitFor({ timeout: 30000 });
  await why.locator("#why-class").selectOption({ label: "8" });
  await page.waitForFunction(() => /\b8\b/.test(document.querySelector("#panel-why p[role=status]").textContent));
  await shoot(page, `${name}-why`);

  const similar = await tab(page, "similar");
  await similar.locator("button").first().waitFor({ timeout: 60000 });
  const alike = await similar.locator("button b").allTextContents();
  assert.ok(alike.filter((label) => label === "3").length > alike.length / 2, `like a 3 are ${alike}`);
  await shoot(page, `${name}-similar`);

  const mistakes = await tab(page, "mistakes");
  await mistakes.locator("[data-cell]").first().waitFor({ timeout: 60000 });
  await mistakes.locator("[data-cell='3,3']").click();
  await page.waitForFunction(() => document.querySelectorAll("#panel-mistakes .thumbs button").length > 10);
  await shoot(page, `${name}-mistakes`);
  await mistakes.locator(".thumbs button").first().click();
  await page.waitForFunction(() => document.querySelector("#tab-layers").getAttribute("aria-selected") === "true");

  const filters = await tab(page, "filters");
  await filters.locator("img").waitFor();
  await shoot(page, `${name}-filters`);
  const network = await tab(page, "network");
  await network.locator("svg").waitFor();
  await shoot(page, `${name}-network`);

  // Every tab by keyboard, and the other language and back.
  await page.locator("#tab-network").focus();
  await page.keyboard.press("Home");
  assert.equal(await page.locator("[role=tab][aria-selected=true]").getAttribute("id"), "tab-layers");
  const before = await page.locator("#tab-filters").textContent();
  await page.locator("#language").click();
  assert.notEqual(await page.locator("#tab-filters").textContent(), before);
  await page.locator("#language").click();
  assert.equal(await page.locator("#tab-filters").textContent(), before);
  await clean();
  console.log(`${name}: a 3 wins, every tab opens`);
}

/** A run that has just begun: its pictures appear, it holds, goes on and stops. */
async function pausesAndStops(page, name, meanwhile) {
  const step = async () => Number((await page.locator("#live-step").textContent()).split("/")[0].replaceAll(",", ""));
  await page.waitForFunction(() => /[1-9]/.test(document.querySelector("#live-step").textContent), null, { timeout: 60000 });
  await page.locator("#panel-training svg").nth(3).waitFor({ timeout: 60000 });
  await page.waitForTimeout(4000);
  await page.locator("#live-pause").click();
  await page.locator("#live-resume").waitFor({ timeout: 60000 });
  const paused = await step();
  await shoot(page, name);
  await page.waitForTimeout(1500);
  assert.equal(await step(), paused, "a paused run stands still");
  await meanwhile();
  await page.locator("#live-resume").click();
  await page.waitForFunction(
    (paused) => Number(document.querySelector("#live-step").textContent.split("/")[0].replaceAll(",", "")) > paused,
    paused,
    { timeout: 60000 },
  );
  await page.locator("#live-stop").click();
  await page.locator("#live-stop").click();
  await page.waitForFunction(() => /done|끝남/.test(document.querySelector("#live-phase").textContent), null, { timeout: 120000 });
}

/** A training in the page itself, looked into while it goes on; its model goes out as a file and comes in again. */
async function trains(url) {
  for (const [name, settings] of [
    ["desktop", {}],
    ["phone-dark-ko", { width: 390, height: 844, scheme: "dark", language: "ko-KR", touch: true }],
  ]) {
    const { page, clean } = await open(url, settings);
    await tab(page, "training");
    await page.locator("#lesson-images").selectOption("10000");
    await shoot(page, `site-lesson-${name}`);
    await page.locator("#lesson-begin").click();
    await page.locator("#live-pause").waitFor({ timeout: 60000 });
    await pausesAndStops(page, `site-training-${name}`, async () => {
      const layers = await tab(page, "layers");
      await layers.locator(".map img").nth(3).waitFor();
      await tab(page, "training");
    });
    await shoot(page, `site-trained-${name}`);
    // The network that has learnt a little knows what it was shown most of.
    const downloading = page.waitForEvent("download");
    await page.locator("#panel-training .save_model").click();
    const download = await downloading;
    assert.equal(download.suggestedFilename(), "simple-convnet.safetensors");
    const file = join(mkdtempSync(join(tmpdir(), "striate-")), "simple-convnet.safetensors");
    await download.saveAs(file);
    await tab(page, "network");
    await page.locator("#panel-network .model-file").setInputFiles(file);
    await page.waitForFunction(() => document.querySelector("#model").textContent === "simple-convnet");
    await page.waitForFunction(() => document.querySelector("main").dataset.tab === "layers");
    await page.locator(".bars li.best").waitFor();
    await clean();
  }
  console.log("site: trained, paused, resumed, stopped; its model downloaded and opened");
}

async function watches() {
  const out = join(mkdtempSync(join(tmpdir(), "striate-")), "run");
  const training = start(options.striate, ["train", "--watch", "127.0.0.1:0", "--epochs", "40", "--out", out]);
  try {
    const url = await training.url;
    const { page, clean } = await open(url, {});
    await pausesAndStops(page, "training", async () => {
      // Reloading disturbs nothing.
      await page.reload();
      await page.locator("#live-resume").waitFor();
    });
    await tab(page, "filters");
    await page.locator("#panel-filters img").waitFor();
    await clean();
    const phone = await open(url, { width: 390, height: 844, scheme: "dark", language: "ko-KR", touch: true });
    await phone.page.locator("#panel-training svg").first().waitFor();
    await shoot(phone.page, "training-phone");
    await phone.clean();
    console.log("training: watched, paused, resumed, stopped");
  } finally {
    await training.end();
  }
}

let failed = false;
try {
  const serve = () => {
    if (options.site) return start("python3", ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", options.site]);
    return start(options.striate, ["serve", run, "--addr", "127.0.0.1:0"]);
  };
  const served = options.address ? { url: options.address, end: () => {} } : serve();
  const url = await served.url;
  await looksInside(url, "desktop-light", {});
  await looksInside(url, "desktop-dark-ko", { scheme: "dark", language: "ko-KR" });
  await looksInside(url, "phone-light-ko", { width: 390, height: 844, language: "ko-KR", touch: true });
  await looksInside(url, "phone-dark", { width: 390, height: 844, scheme: "dark", touch: true });
  if (options.site) await trains(url);
  await served.end();
  if (!options.address && !options.site) await watches();
} catch (error) {
  console.error(error);
  failed = true;
}
await browser.close();
process.exit(failed ? 1 : 0);
