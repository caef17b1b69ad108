// On a small screen nothing is out of reach.

import assert from "node:assert/strict";
import { test } from "node:test";
import { cardOf, dialogOf, picture, rowOf, says, stage } from "./browser.js";
import { nlpPartial } from "./server.js";

const it = stage();

test("the page is never wider than a telephone, and a retry is confirmed there", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open("/batches", { viewport: { width: 390, height: 780 } });
  const isFitting = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  await rowOf(page, batch).waitFor();
  await picture(page, "list-narrow");
  assert.ok(await page.getByLabel("Phase status").isHidden(), "the list comes first");
  await page.getByRole("button", { name: "Filters", exact: true }).click();
  await page.getByLabel("Phase status").selectOption("completed_with_partial_success");
  await page.reload();
  await rowOf(page, batch).waitFor();
  assert.ok(await page.getByLabel("Phase status").isVisible(), "what filters the list is in sight");
  await picture(page, "filters-narrow");
  await page.getByRole("button", { name: "Clear", exact: true }).click();
  assert.ok(await isFitting(), "the list");
  await rowOf(page, batch).getByRole("link").click();
  await says(page.getByRole("grid"), "essay-5.txt");
  await picture(page, "batch-narrow");
  assert.ok(await isFitting(), "the batch");
  await page.locator(".lanes").scrollIntoViewIfNeeded();
  await picture(page, "timeline-narrow");
  await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
  await says(dialogOf(page), "2, at 5 essays");
  await picture(page, "retry-narrow");
  await dialogOf(page).getByRole("button", { name: "Retry", exact: true }).click();
  await says(cardOf(page, "nlp"), "2 attempts");
});
