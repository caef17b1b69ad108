// "Copy as curl": what is copied does in a shell what the button does.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { cardOf, clipboard, dialogOf, says, stage } from "./browser.js";
import { nlpFailed } from "./server.js";

const it = stage();

const inShell = async (command, env = {}) => {
  const { stdout } = await promisify(execFile)("sh", ["-c", command], { env: { PATH: process.env.PATH, ...env } });
  return JSON.parse(stdout);
};

const copied = async (page) => {
  await dialogOf(page).getByRole("button", { name: /^Copy as curl/ }).click();
  await says(page.locator("#said"), "Copied as curl");
  return clipboard(page);
};

/** A token that names somebody; its signature is nobody's. */
const tokenOf = (sub) => ["e30", Buffer.from(JSON.stringify({ sub })).toString("base64url"), "secret"].join(".");

test("a retry, whose reason has everything that a shell minds", async () => {
  const [batch] = await it.server.seed(nlpFailed({ user_id: "o'brien" }));
  const page = await it.open(`/batches/${batch}`, { user: "o'brien" });
  await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
  await says(dialogOf(page), "2, at 3 essays");
  const reason = `it's "$(touch /tmp/never)" \`now\` \\ \n & ; | * ! ü 你 🙂 @file`;
  await dialogOf(page).getByLabel("Reason").fill(reason);
  const command = await copied(page);
  const said = await inShell(command);
  assert.deepEqual([said.status, said.phase, said.attempt], ["retry_initiated", "nlp", 2]);
  // It is the same request, with the same key.
  assert.deepEqual(await inShell(command), said);
  await it.server.ask("GET", `/v1/batches/${batch}/status?wait_ms=30000`, undefined, "o'brien");
  const { attempts } = await it.server.ask("GET", `/v1/batches/${batch}/phases/nlp/attempts`, undefined, "o'brien");
  assert.deepEqual([attempts.length, attempts[1].reason, attempts[1].requested_by], [2, reason, "o'brien"]);
});

test("a token is never copied", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`, { user: null });
  const secret = tokenOf("teacher-7");
  await dialogOf(page).getByLabel("Bearer token").fill(secret);
  await page.keyboard.press("Enter");
  await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
  await says(dialogOf(page), "2, at 3 essays");
  const command = await copied(page);
  assert.ok(!command.includes(secret) && !command.includes("secret"));
  assert.ok(command.includes('"Authorization: Bearer $TOKEN"'), command);
  assert.equal((await inShell(command, { TOKEN: secret })).status, "retry_initiated");
});

test("cancel, bulk retry, and dead letters", async () => {
  await it.server.faults([{ phase: "nlp", garbled: true }]);
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open();
  await page.getByRole("button", { name: /^Retry all/ }).click();
  await says(dialogOf(page), "1 would be retried");
  const bulk = await copied(page);
  assert.equal((await inShell(bulk)).total, 1);
  await page.keyboard.press("Escape");
  for (;;) {
    const { dead_letters: found } = await it.server.ask("GET", "/internal/v1/dead-letters");
    if (found.length > 0) break;
    await it.server.advance(50);
  }
  await page.goto(`${it.server.url}/#/batches/${batch}`);
  await page.getByRole("button", { name: "Cancel…" }).click();
  assert.deepEqual((await inShell(await copied(page))).status, "cancelled");
  await page.keyboard.press("Escape");
  await page.goto(`${it.server.url}/#/dead-letters`);
  await page.locator("tbody a").click();
  await page.getByRole("button", { name: "Discard…" }).click();
  assert.equal((await inShell(await copied(page))).state, "discarded");
});

test("where the clipboard is closed, the command is shown", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await page.evaluate(() => (navigator.clipboard.writeText = () => Promise.reject(new Error("no"))));
  await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
  await dialogOf(page).getByRole("button", { name: /^Copy as curl/ }).click();
  const command = await page.getByLabel("The command").inputValue();
  assert.match(command, /^curl .*retry-phase'/);
});
