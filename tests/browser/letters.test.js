// Dead letters: read, sent on their way again, closed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { dialogOf, picture, says, stage } from "./browser.js";
import { nlpFailed } from "./server.js";

const it = stage();

/** So many dead letters: outcomes that nobody can read. */
async function letters(number) {
  await it.server.faults([{ phase: "nlp", garbled: true }]);
  const batches = await it.server.seed(...Array.from({ length: number }, () => nlpFailed()));
  for (const batch of batches) await it.server.retry(batch, { phase_name: "nlp" });
  for (;;) {
    const { dead_letters: found } = await it.server.ask("GET", "/internal/v1/dead-letters?state=open");
    if (found.length === number) return found.map(({ id }) => id);
    await it.server.advance(50);
  }
}

test("a dead letter is read and redriven; it comes back, since no redrive cures it", async () => {
  const [letter] = await letters(1);
  const page = await it.open("/dead-letters");
  await says(page.locator("tbody"), "open");
  await picture(page, "letters-light");
  await page.getByRole("row").nth(1).getByRole("link").click();
  await says(page.locator("pre"), "huleedu");
  await says(page.locator(".events"), "refused");
  await picture(page, "letter-light");
  await page.getByRole("button", { name: "Redrive…" }).click();
  await dialogOf(page).getByRole("button", { name: "Redrive", exact: true }).click();
  await says(page.locator("#said"), "The dead letter came back: it was refused again");
  await picture(page, "letter-back-light");
  await says(page.locator(".events"), "redriven by teacher-7");
  const { history } = await it.server.ask("GET", `/internal/v1/dead-letters/${letter}`);
  assert.ok(history.some(({ what, by }) => what === "redriven" && by === "teacher-7"));
  assert.deepEqual(page.wrong, []);
});

test("nothing of a dead letter is out of sight on a telephone", async () => {
  await letters(1);
  const page = await it.open("/dead-letters", { viewport: { width: 400, height: 780 } });
  await says(page.locator("tbody"), "open");
  await picture(page, "letters-narrow");
  const isWhole = (selector) => page.locator(selector).evaluateAll((all) => all.every((element) => element.scrollWidth <= element.clientWidth));
  assert.ok(await isWhole(".sheet"));
  const right = await page.locator("tbody .wide-text").evaluate((cell) => cell.getBoundingClientRect().right);
  assert.ok(right <= 400, `the error ends at ${right}`);
});

test("a dead letter is discarded, and no longer offers anything", async () => {
  const [letter] = await letters(1);
  const page = await it.open(`/dead-letters/${letter}`);
  await page.getByRole("button", { name: "Discard…" }).click();
  await dialogOf(page).getByRole("button", { name: "Discard", exact: true }).click();
  await says(page.locator(".events"), "discarded by teacher-7");
  await page.getByRole("button", { name: "Redrive…" }).waitFor({ state: "detached" });
  assert.equal((await it.server.ask("GET", `/internal/v1/dead-letters/${letter}`)).state, "discarded");
});

test("chosen dead letters are discarded at once, and are found by their state", async () => {
  await letters(3);
  const page = await it.open("/dead-letters");
  await page.getByRole("checkbox").nth(2).waitFor();
  await page.getByRole("checkbox").nth(0).check();
  await page.getByRole("checkbox").nth(1).check();
  await page.getByRole("button", { name: "Discard the chosen…" }).click();
  await dialogOf(page).getByRole("button", { name: "Discard", exact: true }).click();
  await says(page.locator("#said"), "2 dead letters discarded");
  assert.equal(await page.locator("tbody tr").count(), 1);
  await page.getByLabel("State").selectOption("discarded");
  await page.locator("tbody tr").nth(1).waitFor();
  assert.match(page.url(), /state=discarded$/);
});
