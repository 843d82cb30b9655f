// Runs a program for wasm32-wasip1 under Node.js: `node scripts/wasi.mjs PROGRAM.wasm [ARGUMENT...]`. Cargo's runner for
// tests of the library (docs/web.md).

import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [program, ...rest] = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args: [program, ...rest], env: process.env, preopens: { "/": "/" } });
const { instance } = await WebAssembly.instantiate(await readFile(program), wasi.getImportObject());
process.exitCode = wasi.start(instance);
