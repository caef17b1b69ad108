// The description of the API: to read, and to try.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { clipboard, picture, says, stage, until } from "./browser.js";
import { nlpFailed } from "./server.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const it = stage();

/** The description, at an operation where one is named. */
async function docs(operation, options) {
  const page = await it.open("/batches", options);
  await page.getByRole("link", { name: "API" }).click();
  await says(page.locator("main h1"), "rephase");
  if (operation) await page.goto(`${it.server.url}/docs#/${operation}`);
  return page;
}

const outcome = (page) => page.locator(".outcome");

test("every operation of the description has its page, and nothing goes wrong on any", async () => {
  const page = await docs();
  const links = page.locator("#operations a");
  const count = await links.count();
  assert.ok(count >= 39, `${count} operations`);
  for (let index = 0; index < count; index += 1) {
    await links.nth(index).click();
    await says(page.locator("main h1"), (await links.nth(index).locator("span").last().textContent()).trim());
    assert.doesNotMatch(await page.locator("main").textContent(), /\[object /);
  }
  await page.getByRole("searchbox").fill("dead letter post");
  assert.equal(await links.count(), 4);
  assert.deepEqual(page.wrong, []);
});

test("a request is tried, copied as curl, and its error shown in full", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await docs("retryPhase");
  await page.getByLabel("batch_id *").fill(batch);
  await page.getByRole("textbox", { name: "Body" }).fill('{"phase_name": "nlp", "dry_run": true}');
  await page.getByRole("button", { name: "Copy as curl" }).click();
  const copied = await clipboard(page);
  assert.ok(copied.includes(`/v1/batches/${batch}/retry-phase'`) && copied.includes('"dry_run":true'), copied);
  await page.getByRole("button", { name: "Send" }).click();
  await says(outcome(page), '"status": "dry_run"');
  await picture(page, "docs-retry");
  await page.getByRole("textbox", { name: "Body" }).fill('{"phase_name": "none"}');
  await page.getByRole("button", { name: "Send" }).click();
  await says(outcome(page), "VALIDATION_ERROR");
  assert.deepEqual(page.wrong, []);
});

test("a stream is shown as it comes, and stopped", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await docs("streamEvents");
  await page.getByLabel("from").selectOption("start");
  await page.getByRole("button", { name: "Send" }).click();
  await it.server.retry(batch, { phase_name: "nlp" });
  await says(outcome(page), "initiate.command");
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Stop" }).waitFor({ state: "detached" });
  assert.deepEqual(page.wrong, []);
});

for (const colorScheme of ["light", "dark"]) {
  test(`nobody is kept out of the description, ${colorScheme}`, async () => {
    const page = await docs("createRetryJob", { colorScheme });
    await says(page.locator("main h1"), "Retry a phase of many batches");
    await picture(page, `docs-${colorScheme}`);
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => window.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`), []);
    await page.setViewportSize({ width: 390, height: 780 });
    await picture(page, `docs-narrow-${colorScheme}`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than a telephone");
  });
}

test("an answer's schema is shown, however deep it is", async () => {
  const page = await docs("retryPhase");
  await says(page.locator(".answer").first(), "goes_on");
  await says(page.locator(".answer").first(), "runs_again");
  await picture(page, "docs-answers");
});

test("a form asks about what is there, in the name of whoever asks, and as a rehearsal where there is one", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await docs("retryPhase");
  const id = page.getByLabel("batch_id *");
  await until(page, async () => (await id.inputValue()) === batch);
  await says(page.locator(".try"), "With dry_run it only says what would happen");
  await page.getByRole("button", { name: "Send" }).click();
  await says(outcome(page), '"status": "dry_run"');
  assert.equal((await it.server.attempts(batch, "nlp")).length, 1);

  await page.goto(`${it.server.url}/docs#/registerBatch`);
  await says(page.locator(".try"), "there is no rehearsal");
  await page.getByRole("button", { name: "Send" }).click();
  await says(outcome(page), '"status": "registered"');
  const registered = JSON.parse(await outcome(page).locator("pre").last().textContent()).batch_id;
  await page.goto(`${it.server.url}/docs#/readBatch`);
  await until(page, async () => (await id.inputValue()) === registered);

  await page.goto(`${it.server.url}/docs#/createRetryJob`);
  assert.match(await page.getByRole("textbox", { name: "Body" }).inputValue(), /"dry_run": true/);
  await page.goto(`${it.server.url}/docs#/redriveDeadLetter`);
  await says(page.locator("main h1"), "Send a message on its way again");
  assert.doesNotMatch(await page.getByRole("textbox", { name: "Body" }).inputValue(), /operator-1/);
  await page.getByRole("button", { name: "Send" }).click();
  await says(outcome(page), "letter_id is needed");
  assert.deepEqual(page.wrong, []);
});
