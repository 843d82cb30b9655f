// Where the model is. The page asks an engine and knows nothing else of it: `ask(question)` gives the answer of
// `Studio::ask` in the library, `act(action)` pauses, resumes or stops a run. Both throw an Error with words for people.

/** The model behind the server that this page came from. */
export class HttpEngine {
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

/** Nobody answers. */
export class Gone extends Error {}
