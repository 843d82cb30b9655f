// The image: drawn, dropped, pasted, opened, taken with the camera, or one of the data.

import { box, el, latest, percent, picture, say } from "./dom.js";

const SIDE = 280;
const PEN = 22;
/** Classes listed at most. */
const LISTED = 10;

/** Listens until `signal` says that another page takes over. */
export function setup(place, app, signal) {
  const canvas = el("canvas", { width: SIDE, height: SIDE, tabindex: "0", role: "img", label: "pad", id: "pad" });
  const pen = el("div", { class: "pen", hidden: true });
  const video = el("video", { playsinline: true, muted: true, hidden: true });
  const pad = el("div", { class: "pad" }, canvas, video, pen);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let strokes = [];

  const file = el("input", { type: "file", accept: "image/*", hidden: true });
  file.addEventListener("change", () => {
    if (file.files[0]) readFile(file.files[0]);
    file.value = "";
  });

  const button = (t, onclick) => el("button", { type: "button", t, onclick, id: `input-${t}` });
  const sample = button("sample", () => app.open("test", Math.floor(Math.random() * 1e9)));
  const take = button("take", takePicture);
  const close = button("close", closeCamera);
  take.hidden = close.hidden = true;
  const camera = button("camera", openCamera);
  camera.hidden = !navigator.mediaDevices?.getUserMedia;
  sample.hidden = !app.about.data;

  const seen = el("div", { class: "frame" });
  const bars = el("ul", { class: "bars", label: "probabilities" });
  const verdict = el("p", { class: "verdict", role: "status" });
  const origin = el("p", { class: "faint" });

  place.append(
    el(
      "div",
      { class: "card" },
      el("p", { class: "faint", t: app.about.draws ? "draw_digit" : "draw_image" }),
      pad,
      el("div", { class: "row" }, button("clear", clear), button("undo", undo), sample, button("open", () => file.click()), camera, take, close),
      file,
    ),
    el(
      "div",
      { class: "card" },
      el("h2", { t: "seen" }),
      el("div", { class: "seen" }, seen, el("div", {}, bars)),
      verdict,
      origin,
    ),
  );
  wipe();

  // Drawing.

  function wipe() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
  }

  function redraw() {
    wipe();
    context.strokeStyle = context.fillStyle = "#000";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
      // A dot is a stroke, too.
      if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.1, stroke[0][1]);
      context.stroke();
    }
  }

  const submit = latest(async () => {
    if (!strokes.length) return;
    const image = await app.ask({ ask: "read", file: canvas.toDataURL("image/png") });
    // Meanwhile it may have been cleared, or another image opened.
    if (image && strokes.length) app.setImage({ ...image, origin: "drawn" });
  });

  function place_of(event) {
    const area = canvas.getBoundingClientRect();
    return [((event.clientX - area.left) / area.width) * SIDE, ((event.clientY - area.top) / area.height) * SIDE];
  }

  let drawing = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    drawing = true;
    strokes.push([place_of(event)]);
    redraw();
    submit();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const move of moves.length ? moves : [event]) strokes.at(-1).push(place_of(move));
    redraw();
    submit();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (drawing) submit();
      drawing = false;
    });
  }

  function clear() {
    strokes = [];
    redraw();
    app.image = null;
    show(null);
  }

  function undo() {
    strokes.pop();
    redraw();
    if (strokes.length) submit();
    else clear();
  }

  // The keyboard's pen.
  let [x, y] = [SIDE / 2, SIDE / 2];
  let down = false;
  function movePen() {
    pen.hidden = document.activeElement !== canvas;
    pen.style.left = `${(100 * x) / SIDE}%`;
    pen.style.top = `${(100 * y) / SIDE}%`;
  }
  canvas.addEventListener("focus", () => (pen.hidden = !canvas.matches(":focus-visible")));
  canvas.addEventListener("blur", () => ((pen.hidden = true), (down = false)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [0, -10], ArrowDown: [0, 10], ArrowLeft: [-10, 0], ArrowRight: [10, 0] }[event.key];
    if (event.key === " ") {
      down = !down;
      if (down) {
        strokes.push([[x, y]]);
      }
    } else if (step) {
      [x, y] = [x + step[0], y + step[1]].map((at) => Math.min(Math.max(at, 0), SIDE));
      if (down) strokes.at(-1).push([x, y]);
    } else return;
    event.preventDefault();
    movePen();
    if (down) {
      redraw();
      submit();
    }
  });

  // Files.

  /** An image, or where the engine is here, a model. */
  function takeIn(file) {
    if (app.about.local && /\.(safetensors|onnx)$/i.test(file.name)) app.openModel(file);
    else readFile(file);
  }

  async function readFile(blob) {
    const reader = new FileReader();
    const text = await new Promise((done, failed) => {
      reader.onload = () => done(reader.result);
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(blob);
    }).catch((error) => app.trouble(error));
    if (!text) return;
    const image = await app.ask({ ask: "read", file: text });
    if (image) app.setImage({ ...image, origin: "file", shown: text });
  }

  const listen = (name, heard) => document.addEventListener(name, heard, { signal });
  listen("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  listen("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  listen("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) takeIn(event.dataTransfer.files[0]);
  });
  listen("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (pasted) readFile(pasted);
  });

  // The camera.

  let stream = null;
  signal.addEventListener("abort", () => stream && closeCamera());
  async function openCamera() {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      say(document.getElementById("trouble"), "no_camera", { reason: error.message }).hidden = false;
      return;
    }
    video.srcObject = stream;
    await video.play();
    camera.hidden = canvas.hidden = true;
    video.hidden = take.hidden = close.hidden = false;
  }
  function closeCamera() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    camera.hidden = canvas.hidden = false;
    video.hidden = take.hidden = close.hidden = true;
  }
  function takePicture() {
    // What the square shows: the middle of the picture.
    const side = Math.min(video.videoWidth, video.videoHeight);
    const still = el("canvas", { width: side, height: side });
    const [left, top] = [(video.videoWidth - side) / 2, (video.videoHeight - side) / 2];
    still.getContext("2d").drawImage(video, left, top, side, side, 0, 0, side, side);
    closeCamera();
    still.toBlob((blob) => blob && readFile(blob), "image/png");
  }

  // What the network sees.

  function show(image) {
    seen.replaceChildren();
    bars.replaceChildren();
    delete verdict.dataset.t;
    verdict.textContent = origin.textContent = "";
    if (!image) return;
    seen.append(picture(image.picture));
    if (image.origin !== "drawn") onPad(image);
    const order = image.probabilities.map((value, index) => [value, index]);
    if (order.length > LISTED) order.sort((a, b) => b[0] - a[0]);
    for (const [value, index] of order.slice(0, LISTED)) {
      const fill = el("i", { style: { width: `${100 * value}%` } });
      bars.append(
        el(
          "li",
          { class: index === image.class ? "best" : "" },
          el("span", { title: app.className(index) }, app.className(index)),
          el("span", { class: "bar" }, fill),
          el("span", {}, percent(value)),
        ),
      );
    }
    say(verdict, "verdict", {
      class: app.className(image.class),
      probability: percent(image.probabilities[image.class]),
    });
    if (image.index !== undefined) {
      const label = say(el("span"), "labelled", { label: app.className(image.label) });
      origin.append(say(el("span"), `from_${image.origin}`, { index: image.index }), ", ", label);
    }
  }

  /** An image that was not drawn, on the drawing area. */
  function onPad(image) {
    strokes = [];
    const element = new Image();
    element.onload = () => {
      if (app.image !== image) return;
      wipe();
      const scale = Math.min(SIDE / element.width, SIDE / element.height);
      const [width, height] = [element.width * scale, element.height * scale];
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(element, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    };
    element.src = image.shown ?? image.picture;
  }

  return {
    show,
    /** Marks rows and columns of the image; none takes the mark away. */
    mark(field) {
      const [, height, width] = app.about.input;
      if (field) box(seen, field.rows.map((at) => at / height), field.columns.map((at) => at / width));
      else seen.querySelector(".box")?.remove();
    },
  };
}
