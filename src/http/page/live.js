// What becomes of the user's batches, as it happens: server-sent events, read with fetch, since an EventSource cannot say
// who asks.

import { base, happenings, headersFor, Problem, tell } from "./api.js";
import { whoAmI } from "./identity.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;

/** The events of a stream of text, one after the other. */
async function* eventsOf(stream) {
  let rest = "";
  for await (const text of chunksOf(stream.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { name: "message", data: "" };
      for (const line of block.split("\n")) {
        const [name, ...value] = line.split(": ");
        if (name === "event") event.name = value.join(": ");
        if (name === "data") event.data += value.join(": ");
      }
      if (event.data) yield event;
    }
  }
}

async function* chunksOf(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.releaseLock();
  }
}

let ending = new AbortController();

async function listenOnce(signal) {
  const path = "v1/notifications/stream";
  const answer = await fetch(new URL(path, base), { headers: headersFor(path), signal, cache: "no-store" });
  if (!answer.ok) {
    const problem = Problem.of(answer, await answer.json().catch(() => null), path);
    if (problem.status === 401) tell("unauthenticated", { path, problem });
    throw problem;
  }
  tell("live", { state: "on", text: "live" });
  // What happened before is not told, so everything in sight is read again.
  tell("resync");
  for await (const { name, data } of eventsOf(answer.body)) {
    let said = null;
    try {
      said = JSON.parse(data);
    } catch {
      continue;
    }
    if (said?.batch_id) tell("moved", { batchId: said.batch_id, event: name });
  }
}

async function listen(signal) {
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    const began = Date.now();
    let state = { state: "off", text: "not live: the connection ended" };
    try {
      await listenOnce(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 401) return;
      state = stateAfter(error);
    }
    if (signal.aborted) return;
    if (Date.now() - began > LONGEST_WAIT_MS) wait = FIRST_WAIT_MS;
    tell("live", state);
    // Whoever cannot listen asks now and then.
    if (wait > FIRST_WAIT_MS) tell("resync");
    await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random() / 2)));
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

/** What is said after an error: whether the server is away, or does not let this tab listen. */
function stateAfter(error) {
  if (!(error instanceof Problem)) return { state: "away", text: "not live: the server cannot be reached" };
  // Other tabs listen, as many as may.
  if (error.status === 429) return { state: "off", text: "every few seconds: other tabs of yours are live" };
  return { state: "off", text: `not live: ${error.message}` };
}

/** Listens from now on, as whoever asks now. */
export function startLive() {
  stopLive();
  ending = new AbortController();
  if (whoAmI()) listen(ending.signal);
}

/** Listens no more. */
export function stopLive() {
  ending.abort();
  tell("live", { state: "off", text: "not live" });
}

happenings.addEventListener("identity", startLive);
