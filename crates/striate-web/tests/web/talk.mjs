// The engine of a built site under Node.js: `node talk.mjs striate.wasm` reads a request a line and writes an answer a line.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";

let engine = null;
const text = (place, length) => new TextDecoder().decode(new Uint8Array(engine.memory.buffer, place >>> 0, length));
const host = { now: () => performance.now(), complain: (place, length) => console.error(text(place, length)) };
const { instance, module } = await WebAssembly.instantiate(await readFile(process.argv[2]), { host });
engine = instance.exports;
// A browser's page gives it nothing else.
const wanted = WebAssembly.Module.imports(module).map(({ module, name }) => `${module}.${name}`).sort();
if (wanted.join() !== "host.complain,host.now") throw new Error(`the engine wants ${wanted}`);
for await (const line of createInterface({ input: process.stdin })) {
  const bytes = new TextEncoder().encode(line);
  const room = engine.room(bytes.length) >>> 0;
  new Uint8Array(engine.memory.buffer, room, bytes.length).set(bytes);
  const length = engine.answer();
  process.stdout.write(`${text(engine.place(), length)}\n`);
}
