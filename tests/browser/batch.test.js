// One batch: phases, essays, attempts, and every way to retry and to cancel.

import assert from "node:assert/strict";
import { test } from "node:test";
import { cardOf, dialogOf, isLive, picture, says, stage, until } from "./browser.js";
import { cjFailed, complete, nlpFailed, nlpPartial } from "./server.js";

const it = stage();
const HOUR = 3_600_000;

const openRetry = async (page, phase) => {
  await cardOf(page, phase).getByRole("button", { name: /^Retry/ }).click();
  return dialogOf(page);
};

const confirm = async (dialog) => {
  await dialog.getByRole("button", { name: "Retry", exact: true }).click();
  await dialog.waitFor({ state: "detached" });
};

const cell = (page, row, column) => page.locator(".grid tbody tr").nth(row).locator("td, th").nth(column);

test("phases, essays and attempts are shown, with the error in full", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  const card = cardOf(page, "nlp");
  await says(card, "3 came out, 2 failed");
  await says(card, "NLP_SERVICE_ERROR · permanent");
  await says(card, "it has no sentences");
  const grid = page.getByRole("grid", { name: "Essays by phase" });
  await says(grid, "essay-5.txt");
  assert.equal(await grid.getByRole("row").count(), 6);
  await says(cell(page, 1, 2), "NLP_SERVICE_ERROR");
  await says(cell(page, 1, 3), "not run");
  await says(cell(page, 0, 3), "came out");
  const attempts = page.locator(".attempts > li");
  assert.equal(await attempts.count(), 3);
  await attempts.nth(1).getByText("2 failed essays").click();
  await says(attempts.nth(1), "essay-2.txt");
  await cell(page, 3, 2).click();
  await says(dialogOf(page), "it has no sentences");
  await says(dialogOf(page), "attempt 1");
  await picture(page, "cell-light");
  await page.keyboard.press("Escape");
  await picture(page, "batch-light");
  assert.deepEqual(page.wrong, []);
});

test("a whole phase is retried with a reason, and the rest goes on by itself", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await isLive(page);
  const dialog = await openRetry(page, "nlp");
  await says(dialog, "nlp is going to be retried; then ai feedback.");
  await says(dialog, "2, at 3 essays");
  await picture(page, "retry-light");
  await dialog.getByLabel("Reason").fill("it is installed now");
  await confirm(dialog);
  await says(page.locator("#said"), "attempt 2 is on its way");
  await says(cardOf(page, "ai_feedback"), "completed");
  await page.locator(".attempts > li", { hasText: "“it is installed now”" }).waitFor();
  assert.equal(await it.server.phaseStatus(batch, "nlp"), "completed_successfully");
  const [, attempt] = await it.server.attempts(batch, "nlp");
  assert.equal(attempt.reason, "it is installed now");
  assert.match(attempt.idempotency_key, /^[0-9a-f-]{36}$/);
});

test("failed essays alone are retried", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  const dialog = await openRetry(page, "nlp");
  await dialog.getByLabel("Failed essays only").check();
  await says(dialog, "2, at 2 essays");
  await confirm(dialog);
  await says(cardOf(page, "nlp"), "5 came out · 2 attempts");
  const [, attempt] = await it.server.attempts(batch, "nlp");
  assert.equal(attempt.essay_count, 2);
});

test("chosen essays alone are retried, from the grid", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  await cell(page, 1, 0).click();
  await says(page.getByRole("status"), "1 essay chosen");
  assert.equal(await page.locator('.grid tr[aria-selected="true"]').count(), 1);
  const dialog = await openRetry(page, "nlp");
  assert.ok(await dialog.getByLabel("The chosen essays (1)").isChecked());
  await says(dialog, "2, at 1 essay");
  await confirm(dialog);
  await says(cardOf(page, "nlp"), "4 came out, 1 failed · 2 attempts");
  const [, attempt] = await it.server.attempts(batch, "nlp");
  assert.equal(attempt.essay_count, 1);
});

test("an essay that came out well is retried only by force, which is offered only then", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  await cell(page, 0, 0).click();
  const dialog = await openRetry(page, "nlp");
  const force = dialog.getByLabel(/force/);
  await says(dialog.locator(".refusal"), "essay-1.txt came out well before");
  assert.equal(await dialog.getByRole("alert").count(), 0, "nothing was sent, so nothing went wrong");
  assert.doesNotMatch(await dialog.textContent(), /409|correlation|"force": true/);
  assert.ok(await dialog.getByRole("button", { name: "Retry", exact: true }).isDisabled());
  await force.check();
  await says(dialog, "2, at 1 essay");
  await dialog.getByLabel("The whole phase").check();
  await says(dialog, "2, at 5 essays");
  assert.ok(await force.isHidden(), "the whole phase needs no force");
});

test("what completed is retried by force, and what is below it again where that is wanted", async () => {
  const [batch] = await it.server.seed(complete());
  const page = await it.open(`/batches/${batch}`);
  const dialog = await openRetry(page, "nlp");
  await dialog.getByLabel(/force/).check();
  await says(dialog, "Turns stale");
  await dialog.getByLabel(/downstream/).check();
  await says(dialog, "Runs again");
  await confirm(dialog);
  await says(cardOf(page, "ai_feedback"), "2 attempts");
});

test("the comparative judgement is offered only whole", async () => {
  const [batch] = await it.server.seed(cjFailed());
  const page = await it.open(`/batches/${batch}`);
  await cell(page, 0, 0).click();
  const dialog = await openRetry(page, "cj_assessment");
  await says(dialog, "only ever retried whole");
  await says(dialog, "2, at 3 essays");
  assert.ok(await dialog.getByLabel("The whole phase").isChecked());
  assert.ok(await dialog.getByLabel("Failed essays only").isHidden());
  assert.ok(await dialog.getByLabel(/chosen/).isHidden());
  await confirm(dialog);
  await says(cardOf(page, "cj_assessment"), "completed");
});

test("what cannot be retried is not offered, with the reason", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  const card = cardOf(page, "ai_feedback");
  await says(card, "No retry now: ai feedback needs nlp, which is failed; retry nlp first");
  assert.equal(await card.getByRole("button").count(), 0);
  const stranger = await it.open(`/batches/${batch}`, { user: "stranger" });
  await says(stranger.locator("section.batch"), "only the owner of the batch may do this");
  assert.equal(await stranger.getByRole("button", { name: /^Retry/ }).count(), 0);
});

test("a retry of a batch that moved meanwhile is refused, shown, and previewed anew", async () => {
  await it.server.faults([{ phase: "nlp", delay_ms: 600_000 }]);
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  const dialog = await openRetry(page, "nlp");
  await says(dialog, "2, at 3 essays");
  await it.server.retry(batch, { phase_name: "nlp" });
  await dialog.getByRole("button", { name: "Retry", exact: true }).click();
  await says(dialog.getByRole("alert"), "PRECONDITION_FAILED");
  await says(dialog.getByRole("alert"), "The batch has changed since this was asked");
  await says(dialog.locator(".refusal"), "nlp is running; it can be retried once it has ended");
  assert.ok(await dialog.getByRole("button", { name: "Retry", exact: true }).isDisabled());
  await picture(page, "refused-light");
  assert.equal((await it.server.attempts(batch, "nlp")).length, 2, "nothing was retried twice");
});

test("a reason of more than 500 characters is counted and not sent", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  const dialog = await openRetry(page, "nlp");
  const button = dialog.getByRole("button", { name: "Retry", exact: true });
  await says(dialog, "2, at 3 essays");
  await dialog.getByLabel("Reason").fill("🙂".repeat(501));
  await says(dialog, "501 of 500 characters: 1 too many");
  assert.ok(await button.isDisabled());
  await dialog.getByLabel("Reason").fill("🙂".repeat(500));
  await says(dialog, "500 of 500 characters");
  await confirm(dialog);
  await it.server.settled(batch);
  assert.equal([...(await it.server.attempts(batch, "nlp"))[1].reason].length, 500);
});

test("a running batch shows how far it is, and is cancelled with a reason", async () => {
  await it.server.faults([{ phase: "nlp", delay_ms: 600_000 }]);
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await isLive(page);
  await it.server.retry(batch, { phase_name: "nlp" });
  await page.evaluate(() => location.reload());
  await says(cardOf(page, "nlp"), "running");
  await says(cell(page, 0, 2), "on its way");
  await page.getByRole("button", { name: "Cancel…" }).click();
  const dialog = dialogOf(page);
  await says(dialog, "nlp, ai feedback will be cancelled");
  await dialog.getByLabel("Reason").fill("wrong class");
  await dialog.getByRole("button", { name: "Cancel the pipeline" }).click();
  await dialog.waitFor({ state: "detached" });
  await says(cardOf(page, "nlp"), "cancelled");
  await says(page.locator(".attempts"), "cancelled by teacher-7: wrong class");
  await until(page, () => page.getByRole("button", { name: "Cancel…" }).isHidden());
  await says(cardOf(page, "ai_feedback"), "No retry now");
});

test("a stale phase and a stuck one say so", async () => {
  const again = { phase: "spellcheck", reason: "new words" };
  const [stale] = await it.server.seed({
    essays: 2,
    history: [
      { pipeline: "nlp" },
      { phase: "spellcheck", essays: [0], error_code: "SPELLCHECK_SERVICE_ERROR", category: "permanent" },
      { phase: "nlp" },
      again,
    ],
  });
  const page = await it.open(`/batches/${stale}`);
  await says(cardOf(page, "nlp"), "Stale");
  await it.server.faults([{ phase: "spellcheck", delay_ms: 3_600_000 }]);
  const [stuck] = await it.server.seed({ history: [{ pipeline: "nlp" }, { phase: "spellcheck", ends: "dispatched" }] });
  await it.server.advance(8 * 60_000);
  const other = await it.open(`/batches/${stuck}`);
  await says(other.locator("section.batch"), "Stuck: a phase has been over half its deadline");
});

test("what comes from a batch is text, whatever it looks like", async () => {
  const message = "<img src=x onerror=alert(1)><script>alert(2)</script>";
  const error = { error_code: "NLP_SERVICE_ERROR", category: "permanent", message };
  const [batch] = await it.server.seed({ history: [{ pipeline: "nlp" }, { phase: "spellcheck" }, { phase: "nlp", ...error }] });
  const page = await it.open(`/batches/${batch}`);
  await says(cardOf(page, "nlp"), message);
  assert.equal(await page.locator("img").count(), 0);
  assert.deepEqual(page.wrong, []);
});

test("what is asked about a batch is no error in the console", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  const refused = [];
  page.on("console", (message) => message.type() === "error" && refused.push(message.text()));
  await page.reload();
  await says(cardOf(page, "ai_feedback"), "No retry now: ai feedback needs nlp");
  const dialog = await openRetry(page, "nlp");
  await says(dialog, "2, at 3 essays");
  assert.deepEqual(refused, []);
});

test("an address that cannot be read is said to be one, and nothing else is shown under it", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`);
  await says(cardOf(page, "nlp"), "NLP_SERVICE_ERROR");
  for (const place of ["/batches/%E0%A4%A", "/%"]) {
    await page.evaluate((hash) => (location.hash = hash), place);
    await says(page.getByRole("heading", { level: 1 }), "No such address");
    assert.equal(await page.locator("section.batch").count(), 0);
    await page.reload();
    await says(page.getByRole("alert"), "cannot be read");
    await page.getByRole("link", { name: "Batches" }).last().click();
    await page.locator("section.list").waitFor();
  }
  assert.deepEqual(page.wrong, []);
});

test("what steers the direction of text is shown as its number", async () => {
  const error = { essays: [0], error_code: "NLP_SERVICE_ERROR", category: "permanent", message: "before \u202eafter" };
  const reason = "why \u2066not";
  const [batch] = await it.server.seed({ history: [{ pipeline: "nlp" }, { phase: "spellcheck" }, { phase: "nlp", ...error }, { phase: "nlp", reason, ...error }] });
  const page = await it.open(`/batches/${batch}`);
  await says(cardOf(page, "nlp"), "before \\u{202e}after");
  await says(page.locator(".attempts"), "“why \\u{2066}not”");
  const all = () => page.evaluate(() => document.documentElement.outerHTML);
  assert.doesNotMatch(await all(), /[\u202a-\u202e\u2066-\u2069]/);
  await cell(page, 0, 2).click();
  await says(dialogOf(page), "before \\u{202e}after");
  assert.doesNotMatch(await all(), /[\u202a-\u202e\u2066-\u2069]/);
});

test("a batch that does not exist is shown as the error it is", async () => {
  const page = await it.open("/batches/00000000-0000-7000-8000-000000000000");
  await says(page.getByRole("alert"), "404 · RESOURCE_NOT_FOUND");
});

test("of a batch that is not there, or somebody else's, nothing but the error is shown", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  for (const [id, user] of [["00000000-0000-7000-8000-000000000000", "teacher-7"], [batch, "stranger"]]) {
    const page = await it.open(`/batches/${id}`, { user });
    await page.getByRole("alert").waitFor();
    assert.deepEqual(await page.getByRole("heading", { level: 2 }).filter({ visible: true }).allTextContents(), []);
    assert.ok(await page.getByText("Arrow keys move").isHidden());
  }
});

test("an address that is none of this page says so", async () => {
  const page = await it.open("/foo");
  await says(page.getByRole("heading", { level: 1 }), "No such address");
  await says(page.getByRole("alert"), "nothing at “#/foo”");
});

test("a batch that moves while its cancel is confirmed is cancelled by the first press", async () => {
  await it.server.faults([{ phase: "spellcheck", delay_ms: 60_000 }, { phase: "nlp", delay_ms: 600_000 }]);
  const [batch] = await it.server.seed({ history: [{ pipeline: "ai_feedback" }, { phase: "spellcheck", ends: "in_progress" }] });
  const page = await it.open(`/batches/${batch}`);
  await page.getByRole("button", { name: "Cancel…" }).click();
  const dialog = dialogOf(page);
  await says(dialog, "spellcheck, nlp, ai feedback will be cancelled");
  await dialog.getByLabel("Reason").fill("wrong class");
  const before = (await it.server.status(batch)).pipeline_state.spellcheck.status;
  assert.equal(before, "in_progress");
  while ((await it.server.phaseStatus(batch, "nlp")) === "pending_dependencies") await it.server.advance(60_000);
  await says(dialog.locator("p"), /^nlp, ai feedback will be cancelled/);
  await dialog.getByRole("button", { name: "Cancel the pipeline" }).click();
  await dialog.waitFor({ state: "detached" });
  await says(page.locator("#said"), "nlp, ai feedback cancelled");
  assert.equal(await it.server.phaseStatus(batch, "nlp"), "cancelled");
});

test("a cancel of what has ended meanwhile cannot be pressed, and says why", async () => {
  await it.server.faults([{ phase: "nlp", delay_ms: 60_000 }]);
  const [batch] = await it.server.seed({ history: [{ pipeline: "nlp" }, { phase: "spellcheck" }, { phase: "nlp", ends: "in_progress" }] });
  const page = await it.open(`/batches/${batch}`);
  await page.getByRole("button", { name: "Cancel…" }).click();
  await says(dialogOf(page), "nlp will be cancelled");
  while ((await it.server.phaseStatus(batch, "nlp")) === "in_progress") await it.server.advance(60_000);
  await says(dialogOf(page), "nothing to cancel");
  assert.ok(await dialogOf(page).getByRole("button", { name: "Cancel the pipeline" }).isDisabled());
});

test("while the next attempt is at it, what went wrong before is still told", async () => {
  await it.server.faults([{ phase: "nlp", delay_ms: HOUR }]);
  const [batch] = await it.server.seed(nlpPartial());
  await it.server.retry(batch, { phase_name: "nlp" });
  const page = await it.open(`/batches/${batch}`);
  const card = cardOf(page, "nlp");
  await says(card, "running");
  await says(card, "Attempt 1: 2 essays failed with NLP_SERVICE_ERROR · permanent");
  await says(card, "it has no sentences");
  assert.doesNotMatch(await card.textContent(), /the grid below/);
  await picture(page, "running-light");
});

test("one failed and one good essay: the dialog says which is which", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  await cell(page, 1, 0).click();
  await cell(page, 2, 0).click();
  const dialog = await openRetry(page, "nlp");
  await says(dialog.locator(".refusal"), "essay-3.txt came out well before. Tick “Run again what came out well” to retry it all the same (or choose only those that failed).");
  await picture(page, "refusal-light");
});

test("the timeline has times, durations and a legend, in the order of the list", async () => {
  const [batch] = await it.server.seed(nlpPartial());
  const page = await it.open(`/batches/${batch}`);
  await isLive(page);
  await it.server.retry(batch, { phase_name: "nlp" });
  await says(page.locator(".attempts"), "nlp, attempt 2");
  await says(page.locator(".attempts > li").first(), "began");
  const lanes = page.getByRole("img", { name: /^From .*, for .*\d m?s/ });
  await lanes.waitFor();
  assert.deepEqual(await lanes.locator(".ticks > span").count(), 4);
  await says(lanes.locator(".legend"), "partial");
  assert.ok((await lanes.locator(".took").allTextContents()).some((text) => /\d m?s$/.test(text)));
  assert.match(await lanes.locator(".bar-of[title]").first().getAttribute("title"), /^spellcheck, attempt 1: .* took /);
  const times = await page.locator(".attempts time").evaluateAll((all) => all.map((one) => Date.parse(one.dateTime)));
  assert.deepEqual(times, [...times].sort((one, other) => other - one));
  await lanes.scrollIntoViewIfNeeded();
  await picture(page, "timeline-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "timeline-dark");
});
