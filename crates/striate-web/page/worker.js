// The engine in a worker: JSON in and out of the library in WebAssembly, and between two requests a run's next slice.

/** Milliseconds of training between two looks at what was asked meanwhile. */
const SLICE = 150;

let engine = null;
let going = false;
let scheduled = false;

/** Why the engine has ended, in the library's words. */
let words = "";

async function load() {
  const host = {
    now: () => performance.now(),
    complain: (place, length) => {
      words = new TextDecoder().decode(new Uint8Array(engine.memory.buffer, place >>> 0, length));
    },
  };
  const fetched = await fetch(new URL("../striate.wasm", import.meta.url));
  if (!fetched.ok) throw new Error(`striate.wasm: HTTP ${fetched.status}`);
  // Not every server knows what kind of file this is, which streaming would need.
  const module = await WebAssembly.compile(await fetched.arrayBuffer());
  engine = (await WebAssembly.instantiate(module, imports(module, host))).exports;
  const model = await fetch(new URL("../model.safetensors", import.meta.url));
  if (!model.ok) throw new Error(`model.safetensors: HTTP ${model.status}`);
  const file = base64(new Uint8Array(await model.arrayBuffer()));
  const { error } = answer({ open: { name: "model.safetensors", file } });
  if (error) throw new Error(error);
}

/** The host's functions; and for what crates below import for pages and never call in a worker, functions that refuse. */
function imports(module, host) {
  const all = { host };
  for (const wanted of WebAssembly.Module.imports(module)) {
    all[wanted.module] ??= {};
    all[wanted.module][wanted.name] ??= () => {
      throw new Error(`${wanted.module}.${wanted.name} is not here`);
    };
  }
  return all;
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** One request, one answer; the library's panics become errors. */
function answer(request) {
  const bytes = new TextEncoder().encode(JSON.stringify(request));
  try {
    // Each call may grow the memory, and with that replace its buffer.
    const room = engine.room(bytes.length) >>> 0;
    new Uint8Array(engine.memory.buffer, room, bytes.length).set(bytes);
    const length = engine.answer();
    const place = engine.place() >>> 0;
    const answered = JSON.parse(new TextDecoder().decode(new Uint8Array(engine.memory.buffer, place, length)));
    going = answered.going;
    return answered;
  } catch (error) {
    throw new Error(words || String(error));
  }
}

function schedule() {
  if (scheduled || !going) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    guarded(() => answer({ advance: SLICE }));
  });
}

/** What ends the engine ends it for good, and is told. */
function guarded(work) {
  try {
    const result = work();
    schedule();
    return result;
  } catch (error) {
    going = false;
    self.postMessage({ fatal: error.message });
  }
}

const ready = load();
ready.catch((error) => self.postMessage({ fatal: error.message }));

self.addEventListener("message", async ({ data: { id, request } }) => {
  try {
    await ready;
  } catch {
    return;
  }
  const answered = guarded(() => answer(request));
  if (answered) self.postMessage({ id, answer: answered });
});
