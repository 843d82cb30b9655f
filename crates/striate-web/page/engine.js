// Where the model is. The page asks an engine and knows nothing else of it: `ask(question)` gives the answer of
// `Studio::ask` in the library, `act(action)` pauses, resumes or stops a run. An engine in the browser itself can besides
// `train(lesson)`, `open(file)` a model and `save()` it. All throw an Error with words for people.

/** The engine of this page: its server, or where it is a static site, WebAssembly in a worker. */
export function connect() {
  return document.querySelector("meta[name=engine][content=worker]") ? new WorkerEngine() : new HttpEngine();
}

/** The model behind the server that this page came from. */
class HttpEngine {
  ask(question) {
    return post("studio", question);
  }

  act(action) {
    return post("run", { action });
  }
}

async function post(path, value) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(value),
    });
  } catch {
    throw new Gone();
  }
  const answer = await response.json().catch(() => ({ error: `HTTP ${response.status}` }));
  if (!response.ok) throw new Error(answer.error ?? `HTTP ${response.status}`);
  return answer;
}

/** The library itself, beside the page. */
class WorkerEngine {
  #worker = new Worker("page/worker.js", { type: "module" });
  #waiting = new Map();
  #asked = 0;
  #trouble = null;

  constructor() {
    this.#worker.addEventListener("message", ({ data: { id, answer, fatal } }) => {
      if (fatal) return this.#end(fatal);
      const { done, failed } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (answer.error === undefined) done(answer.ok);
      else failed(new Error(answer.error));
    });
    this.#worker.addEventListener("error", (event) => this.#end(event.message ?? "the worker can't be loaded"));
  }

  /** What it can't do any more: everything. */
  #end(reason) {
    this.#trouble = new Error(reason);
    for (const { failed } of this.#waiting.values()) failed(this.#trouble);
    this.#waiting.clear();
  }

  #request(request) {
    if (this.#trouble) return Promise.reject(this.#trouble);
    return new Promise((done, failed) => {
      this.#waiting.set(++this.#asked, { done, failed });
      this.#worker.postMessage({ id: this.#asked, request });
    });
  }

  ask(question) {
    return this.#request({ ask: question });
  }

  act(action) {
    return this.#request({ act: action });
  }

  train(lesson) {
    return this.#request({ train: lesson });
  }

  open(file) {
    return base64(file).then((text) => this.#request({ open: { name: file.name, file: text } }));
  }

  /** The model as a Blob with a name. */
  async save() {
    const { name, file } = await this.#request({ save: {} });
    return { name, blob: new Blob([Uint8Array.from(atob(file), (sign) => sign.charCodeAt(0))]) };
  }
}

/** A file's bytes in base64. */
function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

/** Nobody answers. */
export class Gone extends Error {}
