// A server of its own for a file of tests, and what tests make of it.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const PROGRAM = process.env.REPHASE;
if (!PROGRAM) throw new Error("REPHASE names the program; tests/browser/run does that");

export const OWNER = "teacher-7";

export class Server {
  constructor(child, url) {
    Object.assign(this, { child, url });
  }

  static async start(...options) {
    const all = ["serve", "--listen", "127.0.0.1:0", "--ephemeral", "--test-api", "--end-with-stdin", ...options];
    const child = spawn(PROGRAM, all, { stdio: ["pipe", "pipe", "inherit"] });
    const [line] = await once(createInterface({ input: child.stdout }), "line");
    return new Server(child, JSON.parse(line).url);
  }

  async end() {
    const ended = once(this.child, "exit");
    this.child.stdin.end();
    const [code] = await ended;
    if (code !== 0) throw new Error(`rephase ended with ${code}`);
  }

  /** Who asks is a user by name, or whom the token names. */
  async ask(method, path, body, user = OWNER, token = undefined) {
    const headers = token ? { Authorization: `Bearer ${token}` } : { "X-User-ID": user };
    const answer = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(`${method} ${path}: ${answer.status}: ${said.error}`), { said });
    return said;
  }

  reset() {
    return this.ask("POST", "/_test/reset");
  }

  faults(rules) {
    return this.ask("PUT", "/_test/faults", rules);
  }

  /** Moves the server's time. Everything that is due has happened when this resolves. */
  advance(ms = 0) {
    return this.ask("POST", "/_test/clock/advance", { ms });
  }

  async seed(...batches) {
    const body = { batches: batches.map((batch) => ({ user_id: OWNER, essays: 3, ...batch })) };
    return (await this.ask("POST", "/_test/seed", body)).batch_ids;
  }

  status(batch) {
    return this.ask("GET", `/v1/batches/${batch}/status`);
  }

  async phaseStatus(batch, phase) {
    return (await this.status(batch)).pipeline_state[phase].status;
  }

  async attempts(batch, phase) {
    return (await this.ask("GET", `/v1/batches/${batch}/phases/${phase}/attempts`)).attempts;
  }

  retry(batch, body, token) {
    return this.ask("POST", `/v1/batches/${batch}/retry-phase`, body, OWNER, token);
  }

  /** Waits until nothing of the batch waits or runs. */
  settled(batch) {
    return this.ask("GET", `/v1/batches/${batch}/status?wait_ms=30000`);
  }
}

const ran = (phase, more = {}) => ({ phase, ...more });

/** nlp has failed for good: ai_feedback was skipped. */
export const nlpFailed = (more = {}) => ({
  history: [
    { pipeline: "ai_feedback" },
    ran("spellcheck"),
    ran("nlp", { error_code: "NLP_SERVICE_ERROR", category: "permanent", message: "the language model is not installed" }),
  ],
  ...more,
});

/** Two of five essays failed in nlp; ai_feedback went on with the others. */
export const nlpPartial = (more = {}) => ({
  essays: 5,
  history: [
    { pipeline: "ai_feedback" },
    ran("spellcheck"),
    ran("nlp", { essays: [1, 3], error_code: "NLP_SERVICE_ERROR", category: "permanent", message: "it has no sentences" }),
    ran("ai_feedback"),
  ],
  ...more,
});

/** The comparative judgement has failed. */
export const cjFailed = (more = {}) => ({
  history: [
    { pipeline: "cj_assessment" },
    ran("spellcheck"),
    ran("cj_assessment", { error_code: "PROCESSING_ERROR", category: "permanent", message: "no judge was there" }),
  ],
  ...more,
});

/** All has come out. */
export const complete = (more = {}) => ({
  history: [{ pipeline: "ai_feedback" }, ran("spellcheck"), ran("nlp"), ran("ai_feedback")],
  ...more,
});
