// Everybody can use it: by the keyboard alone, with a screen reader, in the light and in the dark.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { cardOf, dialogOf, isLive, picture, rowOf, says, stage, until } from "./browser.js";
import { nlpFailed, nlpPartial } from "./server.js";

const it = stage();
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Goes on with the Tab key to the element with this `data-key`. */
async function tabTo(page, key) {
  for (let steps = 0; steps < 60; steps += 1) {
    await page.keyboard.press("Tab");
    const found = await page.evaluate(() => document.activeElement?.dataset.key);
    if (found === key) return;
  }
  assert.fail(`Tab never came to ${key}`);
}

const focus = (page) => page.evaluate(() => document.activeElement?.dataset.key ?? document.activeElement?.id);

test("a phase is retried with the keyboard alone, and the focus comes back", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open();
  await rowOf(page, batch).waitFor();
  await tabTo(page, `link-${batch}`);
  await page.keyboard.press("Enter");
  await cardOf(page, "nlp").getByRole("button").waitFor();
  assert.equal(await focus(page), "batch-title", "the new heading is heard");
  await tabTo(page, "retry-nlp");
  await page.keyboard.press("Enter");
  await says(dialogOf(page), "2, at 3 essays");
  assert.equal(await page.evaluate(() => document.activeElement.value), "whole");
  await page.keyboard.press("Escape");
  await dialogOf(page).waitFor({ state: "detached" });
  assert.equal(await focus(page), "retry-nlp", "Escape closes it, and the focus is back");

  await page.keyboard.press("Enter");
  await says(dialogOf(page), "2, at 3 essays");
  await page.keyboard.press("ArrowDown");
  await says(dialogOf(page), "2, at 3 essays");
  await page.keyboard.press("Tab");
  await page.keyboard.type("by keyboard");
  await until(page, () => dialogOf(page).getByRole("button", { name: "Retry", exact: true }).isEnabled());
  for (const _ of [1, 2, 3]) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await dialogOf(page).waitFor({ state: "detached" });
  await says(cardOf(page, "ai_feedback"), "completed");
  const [, attempt] = await it.server.attempts(batch, "nlp");
  assert.equal(attempt.reason, "by keyboard");
  assert.notEqual(await focus(page), undefined, "the focus is not lost");
});

test("the focus is visible wherever it is", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await cardOf(page, "nlp").getByRole("button").waitFor();
  await page.locator("#skip").focus();
  for (let steps = 0; steps < 14; steps += 1) {
    await page.keyboard.press("Tab");
    const style = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [document.activeElement.tagName, outlineStyle, outlineWidth];
    });
    if (style[0] !== "BODY") assert.deepEqual(style.slice(1), ["solid", "2px"], style[0]);
  }
});

test("the arrow keys move in the grid, Space chooses and Enter shows", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  const grid = page.getByRole("grid");
  await says(grid, "essay-5.txt");
  const at = () => page.evaluate(() => [document.activeElement.parentElement.sectionRowIndex, document.activeElement.cellIndex]);
  assert.equal(await grid.locator('[tabindex="0"]').count(), 1, "one stop of the Tab key");
  await grid.locator('[tabindex="0"]').focus();
  for (const [key, place] of [
    ["ArrowDown", [1, 0]],
    ["ArrowRight", [1, 1]],
    ["End", [1, 3]],
    ["Control+End", [4, 3]],
    ["ArrowDown", [4, 3]],
    ["PageUp", [0, 3]],
    ["Home", [0, 0]],
    ["ArrowLeft", [0, 0]],
    ["ArrowDown", [1, 0]],
  ]) {
    await page.keyboard.press(key);
    assert.deepEqual(await at(), place, key);
  }
  await page.keyboard.press("Space");
  await says(page.getByRole("status"), "1 essay chosen");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await says(dialogOf(page), "it has no sentences");
  await page.keyboard.press("Escape");
  await dialogOf(page).waitFor({ state: "detached" });
  assert.deepEqual(await at(), [1, 2], "the focus is back in its cell");
});

test("what happens is said aloud", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await isLive(page);
  await cardOf(page, "nlp").getByRole("button").waitFor();
  assert.equal(await page.locator("#said").getAttribute("aria-live"), "polite");
  await it.server.retry(batch, { phase_name: "nlp" });
  await says(page.locator("#said"), "completed");
});

test("every view has its landmarks, names and roles", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open();
  await rowOf(page, batch).waitFor();
  const list = await page.locator("body").ariaSnapshot();
  for (const part of ["banner", "navigation", "main", "search", "table", "status", 'columnheader "nlp"', 'heading "Batches" [level=1]']) {
    assert.ok(list.includes(part), `${part} is missing:\n${list}`);
  }
  await page.goto(`${it.server.url}/#/batches/${batch}`);
  await says(page.getByRole("grid"), "essay-3.txt");
  const detail = await page.locator("main").ariaSnapshot();
  for (const part of ['grid "Essays by phase"', 'columnheader "ai feedback"', 'rowheader "essay-1.txt"', 'article "nlp"', 'button "Retry nlp"']) {
    assert.ok(detail.includes(part), `${part} is missing:\n${detail}`);
  }
});

async function violations(page) {
  await page.evaluate(AXE);
  const { violations: found } = await page.evaluate(() => globalThis.axe.run());
  return found.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.any[0]?.message ?? ""}`).join("\n  ")}`);
}

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing in any view: ${colorScheme}`, async () => {
    await it.server.faults([{ phase: "spellcheck", garbled: true }]);
    const [batch, running] = await it.server.seed(nlpPartial({ essays: 12 }), {
      history: [{ pipeline: "ai_feedback" }, { phase: "spellcheck", ends: "in_progress" }],
    });
    const [other] = await it.server.seed(nlpFailed());
    await it.server.retry(other, { phase_name: "spellcheck", force: true });
    await it.server.ask("POST", "/v1/retry-jobs", { filter: { phase_status: "failed" }, phase: "nlp" });
    let letter;
    for (; !letter; await it.server.advance(50)) {
      letter = (await it.server.ask("GET", "/internal/v1/dead-letters")).dead_letters[0];
    }
    const page = await it.open("/batches", { colorScheme, bypassCSP: true, reducedMotion: "reduce" });
    const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    assert.equal(ground, colorScheme === "dark" ? "rgb(21, 24, 27)" : "rgb(251, 251, 250)");
    const look = async (name) => {
      await picture(page, `${name}-${colorScheme}`);
      assert.deepEqual(await violations(page), [], name);
    };
    await rowOf(page, batch).waitFor();
    await look("list");
    await page.getByRole("button", { name: /^Retry all/ }).click();
    await says(dialogOf(page), /fits?;/);
    await look("bulk");
    await page.goto(`${it.server.url}/#/batches/${batch}`);
    await says(page.getByRole("grid"), "essay-12.txt");
    await look("batch");
    await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
    await says(dialogOf(page), "Attempt");
    await look("retry");
    await page.goto(`${it.server.url}/#/batches/${running}`);
    await page.getByRole("button", { name: "Cancel…" }).click();
    await says(dialogOf(page), "will be cancelled");
    await look("cancel");
    await page.goto(`${it.server.url}/#/retry-jobs`);
    await page.locator("tbody a").first().click();
    await says(page.getByRole("status"), "of 1 batch");
    await look("job");
    await page.goto(`${it.server.url}/#/dead-letters`);
    await page.locator("tbody a").first().waitFor();
    await look("letters");
    await page.goto(`${it.server.url}/#/dead-letters/${letter.id}`);
    await page.locator("pre").waitFor();
    await look("letter");
    await page.locator("#who").click();
    await dialogOf(page).waitFor();
    await look("who");
  });
}
