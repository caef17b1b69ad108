// rephase as a fixture: a server of its own for a test file, with a clock that the test moves and faults that it chooses.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { test as base } from "vitest";

const PROGRAM = process.env.REPHASE ?? fileURLToPath(new URL("../../../target/debug/rephase", import.meta.url));

export class Rephase {
  constructor(url, pid, user = "teacher-7") {
    Object.assign(this, { url, pid, user });
  }

  async ask(method, path, body) {
    const headers = { "X-User-ID": this.user };
    const answer = await fetch(this.url + path, { method, headers, body: body && JSON.stringify(body) });
    const said = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(`${method} ${path}: ${answer.status}: ${said.error}`), { said });
    return said;
  }

  /** Moves the server's time. Everything that is due has happened when this resolves; so 0 lets work under way end. */
  advance(ms = 0) {
    return this.ask("POST", "/_test/clock/advance", { ms });
  }

  faults(rules) {
    return this.ask("PUT", "/_test/faults", rules);
  }

  async readyBatch(texts) {
    const { batch_id: batch } = await this.ask("POST", "/v1/batches/register", {
      expected_essay_count: texts.length,
      course_code: "ENG5",
      student_prompt_ref: { references: { student_prompt_text: { storage_id: "prompt-1" } } },
    });
    const essays = texts.map((text, number) => ({ file_name: `${number}.txt`, text }));
    await this.ask("POST", `/v1/batches/${batch}/essays`, { essays });
    return batch;
  }

  status(batch) {
    return this.ask("GET", `/v1/batches/${batch}/status`);
  }

  async attempts(batch, phase) {
    return (await this.ask("GET", `/v1/batches/${batch}/phases/${phase}/attempts`)).attempts;
  }
}

async function start() {
  const directory = mkdtempSync(join(tmpdir(), "rephase-vitest-"));
  const ready = join(directory, "ready");
  const options = ["--listen", "127.0.0.1:0", "--ephemeral", "--test-api", "--end-with-stdin"];
  // It ends with its standard input, however this process ends.
  const child = spawn(PROGRAM, ["serve", ...options, "--latency-ms", "100", "--ready-file", ready], {
    stdio: ["pipe", "ignore", "inherit"],
  });
  const ended = once(child, "exit");
  const until = Date.now() + 30_000;
  while (!existsSync(ready)) {
    if (child.exitCode !== null || Date.now() > until) throw new Error("rephase did not start");
    await sleep(2);
  }
  const { url, pid } = JSON.parse(readFileSync(ready, "utf8"));
  const end = async () => {
    child.stdin.end();
    const [code] = await ended;
    const isLeft = existsSync(ready);
    rmSync(directory, { recursive: true });
    if (code !== 0 || isLeft) throw new Error(`rephase ended with ${code}`);
  };
  return { rephase: new Rephase(url, pid), end };
}

export const test = base.extend({
  /** One server for all tests of a file. */
  server: [
    async ({}, use) => {
      const { rephase, end } = await start();
      await use(rephase);
      await end();
    },
    { scope: "file" },
  ],
  /** The server, empty. */
  rephase: async ({ server }, use) => {
    await server.ask("POST", "/_test/reset");
    await use(server);
  },
});
