// The engine of a built site under Node.js: `node talk.mjs striate.wasm` reads a request a line and writes an answer a line.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

let engine = null;
const text = (place, length) => new TextDecoder().decode(new Uint8Array(engine.memory.buffer, place >>> 0, length));
const host = { now: () => performance.now(), complain: (place, length) => console.error(text(place, length)) };
const module = new WebAssembly.Module(await readFile(process.argv[2]));
// The rest belongs to a crate below that is made for pages; nothing of it may be called.
const imports = { host };
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
  imports[from] ??= {};
  imports[from][name] ??= () => {
    throw new Error(`${from}.${name} is called`);
  };
}
engine = (await WebAssembly.instantiate(module, imports)).exports;
for await (const line of createInterface({ input: process.stdin })) {
  const bytes = new TextEncoder().encode(line);
  const room = engine.room(bytes.length) >>> 0;
  new Uint8Array(engine.memory.buffer, room, bytes.length).set(bytes);
  const length = engine.answer();
  process.stdout.write(`${text(engine.place(), length)}\n`);
}
