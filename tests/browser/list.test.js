// The list of batches: filtered, searched, and moving by itself.

import assert from "node:assert/strict";
import { test } from "node:test";
import { dialogOf, isLive, picture, rowOf, says, stage } from "./browser.js";
import { cjFailed, complete, nlpFailed, nlpPartial } from "./server.js";

const it = stage();
const HOUR = 3_600_000;

const shownIds = (page) => page.locator("tbody tr[data-key]").evaluateAll((rows) => rows.map((row) => row.dataset.key));

const isShown = (page, count) => says(page.locator(".total"), new RegExp(`^${count} batch(es)?$`));

test("each filter shows its batches, and the address keeps it", async () => {
  await it.server.faults([{ phase: "spellcheck", delay_ms: HOUR }]);
  const [failed, cj, good, stuck] = await it.server.seed(
    nlpFailed({ ago_ms: 4 * HOUR }),
    cjFailed({ ago_ms: 3 * HOUR }),
    complete({ ago_ms: 2 * HOUR }),
    { history: [{ pipeline: "nlp" }, { phase: "spellcheck", ends: "dispatched" }] },
  );
  await it.server.advance(8 * 60_000);
  const page = await it.open();
  await isShown(page, 4);
  assert.deepEqual(await shownIds(page), [stuck, good, cj, failed]);
  await says(rowOf(page, failed), "NLP_SERVICE_ERROR");
  await says(rowOf(page, stuck), "stuck");

  for (const [label, value, expected] of [
    ["Status", "completed_successfully", [good]],
    ["Phase", "cj_assessment", [cj]],
    ["Phase status", "skipped_due_to_dependency_failure", [failed]],
    ["Error code", "processing_error", [cj]],
  ]) {
    const control = page.getByLabel(label, { exact: true });
    if (label === "Error code") await control.fill(value).then(() => control.press("Tab"));
    else await control.selectOption(value);
    await isShown(page, expected.length);
    assert.deepEqual(await shownIds(page), expected, label);
    assert.match(page.url(), new RegExp(`${value}$`, "i"));
    await page.reload();
    await isShown(page, expected.length);
    await page.getByRole("button", { name: "Clear" }).click();
    await isShown(page, 4);
  }
  await page.getByLabel("stuck only").check();
  await isShown(page, 1);
  assert.deepEqual(await shownIds(page), [stuck]);
  assert.deepEqual(page.wrong, []);
});

test("an error code that does not exist is refused with the server's words", async () => {
  const page = await it.open("/batches?error_code=NONSENSE");
  const alert = page.getByRole("alert");
  await says(alert, "VALIDATION_ERROR");
  await says(alert, "correlation id");
});

test("a value in the address that does not exist is refused with the server's words", async () => {
  for (const name of ["status", "phase", "phase_status"]) {
    const page = await it.open(`/batches?${name}=bogus`);
    await says(page.getByRole("alert"), "bogus");
    await page.getByRole("button", { name: "Clear" }).click();
    await says(page.locator(".total"), "No batch fits");
  }
  const page = await it.open("/batches?status=failed&stuck=perhaps&colour=red");
  await says(page.locator(".total"), "No batch fits");
  assert.match(page.url(), /#\/batches\?status=failed$/, "the address says what is asked for");
});

test("a search finds a part of an id, and a whole id of a batch that is not in the list", async () => {
  const [one, other] = await it.server.seed(nlpFailed({ ago_ms: HOUR }), complete());
  const page = await it.open("/batches?status=completed_successfully");
  await isShown(page, 1);
  const search = page.getByRole("searchbox");
  await search.fill(other.slice(-12));
  await isShown(page, 1);
  await search.fill("no such id");
  await says(page.locator(".total"), "No batch fits");
  await search.fill(one);
  await says(rowOf(page, one), "left the filter");
});

test("a row moves by itself when somebody else retries the phase", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open();
  await isLive(page);
  const row = rowOf(page, batch);
  await says(row, "failed");
  await it.server.retry(batch, { phase_name: "nlp" });
  await row.getByText("attempt 2").waitFor();
  await row.locator("td").nth(0).getByText("completed").waitFor();
  assert.equal(await row.getByRole("button").count(), 0, "there is nothing to retry now");
});

test("a batch that begins elsewhere comes into the list", async () => {
  const [ready] = await it.server.seed({ history: [] });
  const page = await it.open("/batches?status=completed_successfully");
  await isLive(page);
  await says(page.locator(".total"), "No batch fits");
  await it.server.ask("POST", `/v1/batches/${ready}/pipelines`, { requested_pipeline: "nlp" });
  await rowOf(page, ready).waitFor();
});

test("a retry from the row, after which the row moves", async () => {
  const [batch, other] = await it.server.seed(nlpFailed(), nlpPartial({ ago_ms: HOUR }));
  const page = await it.open();
  const row = rowOf(page, batch);
  await row.getByRole("button", { name: /^Retry nlp of batch/ }).click();
  const dialog = dialogOf(page);
  await says(dialog, "Then goes on");
  await dialog.getByLabel("Reason").fill("the model is installed now");
  await dialog.getByRole("button", { name: "Retry", exact: true }).click();
  await dialog.waitFor({ state: "detached" });
  await row.getByText("completed").nth(3).waitFor();
  const attempts = await it.server.attempts(batch, "nlp");
  assert.equal(attempts.at(-1).reason, "the model is installed now");
  await rowOf(page, other).getByText("partial 3/5").waitFor();
  await picture(page, "list-light");
  assert.deepEqual(page.wrong, []);
});

test("a row that no longer fits stays in sight and says so", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open("/batches?phase_status=failed");
  await isLive(page);
  await rowOf(page, batch).waitFor();
  await it.server.retry(batch, { phase_name: "nlp" });
  await says(rowOf(page, batch), "left the filter");
});

test("whoever says who they are sees their own batches, and is remembered", async () => {
  const [mine] = await it.server.seed(complete({ user_id: "Åsa 你" }));
  const page = await it.open("/batches", { user: null });
  const dialog = dialogOf(page);
  await dialog.getByLabel("User").fill("Åsa 你");
  await page.keyboard.press("Enter");
  await rowOf(page, mine).waitFor();
  await isLive(page);
  await page.reload();
  await rowOf(page, mine).waitFor();
  assert.equal(await page.locator("#who").textContent(), "Åsa 你");
});
