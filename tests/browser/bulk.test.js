// A bulk retry from the list's filter: preview, progress, stop.

import assert from "node:assert/strict";
import { test } from "node:test";
import { dialogOf, picture, says, stage } from "./browser.js";
import { complete, nlpFailed } from "./server.js";

const it = stage();

const openBulk = async (page) => {
  await page.getByRole("button", { name: /^Retry all/ }).click();
  return dialogOf(page);
};

test("all that fit the filter are retried, after a preview", async () => {
  const batches = await it.server.seed(nlpFailed(), nlpFailed(), nlpFailed(), complete());
  const page = await it.open("/batches?phase_status=failed");
  let dialog = await openBulk(page);
  await says(dialog, "phase status failed");
  await says(dialog, "3 batches fit; 3 would be retried.");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Clear" }).click();
  dialog = await openBulk(page);
  await says(dialog, "4 batches fit; 3 would be retried.");
  await says(dialog, "1 batch: nlp has completed");
  await dialog.getByLabel("Reason").fill("the model is back");
  await picture(page, "bulk-light");
  await dialog.getByRole("button", { name: "Retry them" }).click();
  await says(page.getByRole("status"), "4 of 4 batches: 3 retried, 1 refused");
  assert.match(page.url(), /#\/retry-jobs\/[0-9a-f-]{36}$/);
  await it.server.settled(batches[0]);
  await says(page.locator("tbody tr").first(), "attempt 2");
  await picture(page, "job-light");
  await page.getByRole("link", { name: "Bulk retries" }).first().click();
  await says(page.locator("tbody"), "the model is back");
  assert.deepEqual(page.wrong, []);
});

test("a bulk retry is stopped", async () => {
  await it.server.seed(...Array.from({ length: 30 }, () => nlpFailed()));
  const page = await it.open("/batches");
  const dialog = await openBulk(page);
  await dialog.getByLabel("Batches a second").fill("1");
  await dialog.getByLabel("Failed essays only").check();
  await says(dialog, "30 would be retried");
  await dialog.getByRole("button", { name: "Retry them" }).click();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await says(page.locator(".heading"), "stopped");
  await says(page.getByRole("status"), /\d+ left alone$/);
  await says(page.locator("tbody"), "left alone");
  assert.equal(await page.getByText("waiting").count(), 0);
  await page.getByRole("button", { name: "Stop", exact: true }).waitFor({ state: "hidden" });
  const { jobs } = await it.server.ask("GET", "/v1/retry-jobs");
  assert.deepEqual([jobs.length, jobs[0].status, jobs[0].only_failed, jobs[0].per_second], [1, "stopped", true, 1]);
});

test("a rate that is none is told in words, and nothing is asked with it", async () => {
  await it.server.seed(nlpFailed());
  const page = await it.open("/batches");
  const dialog = await openBulk(page);
  await says(dialog, "1 would be retried");
  for (const rate of ["-3", "1.5", "1001", ""]) {
    await dialog.getByLabel("Batches a second").fill(rate);
    await dialog.getByLabel("Batches a second").press("Tab");
    await says(dialog.getByRole("alert"), "Batches a second: ");
    assert.doesNotMatch(await dialog.textContent(), /u32/);
    assert.ok(await dialog.getByRole("button", { name: "Retry them" }).isDisabled());
    await dialog.getByLabel("Batches a second").fill("10");
    await dialog.getByLabel("Batches a second").press("Tab");
    await says(dialog, "1 would be retried");
  }
});

test("where nothing would be retried there is nothing to confirm", async () => {
  await it.server.seed(complete());
  const page = await it.open();
  const dialog = await openBulk(page);
  await says(dialog, "1 batch fits; 0 would be retried.");
  assert.ok(await dialog.getByRole("button", { name: "Retry them" }).isDisabled());
});
