// The list of batches: filtered, searched, and moving by itself.

import assert from "node:assert/strict";
import { test } from "node:test";
import { cardOf, dialogOf, isLive, picture, rowOf, says, stage } from "./browser.js";
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
    ["Error code", "PROCESSING_ERROR", [cj]],
  ]) {
    const control = page.getByLabel(label, { exact: true });
    await control.selectOption(value);
    await isShown(page, expected.length);
    assert.deepEqual(await shownIds(page), expected, label);
    assert.match(page.url(), new RegExp(`${value}$`, "i"));
    await page.reload();
    await isShown(page, expected.length);
    await page.getByRole("button", { name: "Clear", exact: true }).click();
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
    await page.getByRole("button", { name: "Clear", exact: true }).click();
    await says(page.locator(".total"), "No batch yet");
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

test("a bulk retry says what it takes: nothing while a search is set, all where no filter is", async () => {
  await it.server.seed(nlpFailed(), nlpFailed(), complete());
  const page = await it.open();
  const bulk = page.getByRole("button", { name: /^Retry all/ });
  await says(bulk, "Retry all 3 batches…");
  await page.getByRole("searchbox").fill("zzzz");
  await says(page.locator(".list"), "No batch has “zzzz” in its id.");
  assert.ok(await bulk.isDisabled());
  await says(page.locator("#bulk-why"), "A search cannot be retried");
  await page.getByRole("button", { name: "Clear", exact: true }).click();
  await isShown(page, 3);
  assert.equal(await page.getByRole("searchbox").inputValue(), "", "Clear clears the search");
  await page.getByLabel("Phase status").selectOption("failed");
  await isShown(page, 2);
  await says(bulk, "Retry all of these…");
  assert.ok(await bulk.isEnabled());
  await page.getByLabel("Phase status").selectOption("cancelled");
  await says(page.locator(".list"), "No batch fits the filter.");
  assert.ok(await bulk.isDisabled());
});

test("what begins elsewhere and is not announced is seen all the same, by one request for the list", async () => {
  await it.server.faults([{ phase: "nlp", delay_ms: HOUR }]);
  const [batch, other] = await it.server.seed(nlpFailed(), complete());
  const page = await it.open();
  const opened = await it.open(`/batches/${batch}`);
  await isLive(page);
  await isLive(opened);
  await rowOf(page, other).waitFor();
  await says(cardOf(opened, "nlp"), "failed");
  await rowOf(page, other).evaluate((row) => (row.wasThere = true));
  await rowOf(page, other).locator("td").first().evaluate((cell) => (cell.firstChild.wasThere = true));
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await it.server.retry(batch, { phase_name: "nlp" });
  await rowOf(page, batch).getByText("running").waitFor();
  const [late] = await it.server.seed({ history: [] });
  await rowOf(page, late).waitFor();
  assert.deepEqual([...new Set(asked)], ["/v1/batches"], "one request for all that is in sight");
  const isLeftAlone = await rowOf(page, other).locator("td").first().evaluate((cell) => cell.closest("tr").wasThere && cell.firstChild.wasThere);
  assert.ok(isLeftAlone, "a row that is the same is left alone");
  await says(cardOf(opened, "nlp"), "running");
});

test("whoever has no batch is told how one is made, and may be in another name", async () => {
  const page = await it.open("/batches", { user: "nobody-yet" });
  await says(page.locator(".total"), "No batch yet");
  await says(page.locator(".list"), "There is no batch of nobody-yet yet.");
  await says(page.locator(".list"), "rephase batch submit");
  assert.ok(await page.getByRole("button", { name: /^Retry all/ }).isDisabled());
  await picture(page, "list-empty-light");
  await page.getByRole("button", { name: "Say another name…" }).click();
  await dialogOf(page).getByLabel("User").waitFor();
});

test("each filter is a place to go back to, and one of them is when a batch was registered", async () => {
  const [old, young] = await it.server.seed(nlpFailed({ ago_ms: 50 * HOUR }), complete());
  const page = await it.open();
  await isShown(page, 2);
  const yesterday = await page.evaluate((ago) => {
    const at = new Date(Date.now() - ago);
    return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  }, 24 * HOUR);
  await page.getByLabel("Registered since").fill(yesterday);
  await isShown(page, 1);
  assert.deepEqual(await shownIds(page), [young]);
  await page.reload();
  await isShown(page, 1);
  assert.equal(await page.getByLabel("Registered since").inputValue(), yesterday);
  await page.goBack();
  await isShown(page, 2);
  assert.equal(await page.getByLabel("Registered since").inputValue(), "");
  await page.getByLabel("Registered before").fill(yesterday);
  await isShown(page, 1);
  assert.deepEqual(await shownIds(page), [old]);
});

test("every error code of the description can be chosen", async () => {
  const page = await it.open();
  const { components } = await it.server.ask("GET", "/openapi.json");
  const codes = await page.getByLabel("Error code").locator("option").evaluateAll((options) => options.map(({ value }) => value));
  assert.deepEqual(codes, ["", ...components.schemas.ErrorCode.enum]);
});

test("nothing of a row is cut off", async () => {
  const error = { error_code: "SPELLCHECK_SERVICE_ERROR", category: "permanent" };
  const judged = { history: [{ pipeline: "cj_assessment" }, { phase: "spellcheck" }, { phase: "cj_assessment", error_code: "CJ_INSUFFICIENT_COMPARISONS", category: "permanent" }] };
  await it.server.seed(
    { missing: 2, ago_ms: 90 * 24 * HOUR },
    { history: [{ pipeline: "ai_feedback" }, { phase: "spellcheck", ...error }], ago_ms: 80 * 24 * HOUR },
    judged,
  );
  for (const width of [1280, 400]) {
    const page = await it.open("/batches", { viewport: { width, height: 860 } });
    await isShown(page, 3);
    await picture(page, `list-long-${width}`);
    const cut = await page.locator("tbody tr[data-key] :is(.second, .chip, td, th)").evaluateAll((all) =>
      all.filter((one) => one.scrollWidth > one.clientWidth + 1 || (one.matches(".second") && one.scrollHeight > one.clientHeight + 1)).map((one) => one.textContent),
    );
    assert.deepEqual(cut, [], `${width} px`);
    const outside = await page.locator("tbody tr[data-key] :is(.chip, button)").evaluateAll((all) =>
      all.filter((one) => one.getBoundingClientRect().right > one.closest("td").getBoundingClientRect().right).map((one) => one.textContent),
    );
    assert.deepEqual(outside, [], `${width} px`);
    assert.ok(await page.locator(".scroller").evaluate((element) => element.scrollWidth <= element.clientWidth), "nothing is beside what is in sight");
  }
});
