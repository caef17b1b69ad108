// A thousand batches of a hundred essays stay smooth: what is in the document does not grow with what there is.

import assert from "node:assert/strict";
import { test } from "node:test";
import { cardOf, isLive, rowOf, says, stage, until } from "./browser.js";
import { nlpFailed } from "./server.js";

const it = stage({ options: ["--latency-ms", "30", "--retain-events", "0"] });

const nodes = (page) => page.evaluate(() => document.querySelectorAll("*").length);

test("1,000 batches of 100 essays", async (t) => {
  const batches = [];
  for (let seeds = 0; seeds < 10; seeds += 1) {
    const more = Array.from({ length: 100 }, (_, number) => nlpFailed({ essays: 100, ago_ms: (10 - seeds) * 3_600_000 - number * 1_000 }));
    batches.push(...(await it.server.seed(...more)));
  }
  const page = await it.open();
  await page.evaluate(() => {
    globalThis.longest = 0;
    const note = (list) => list.getEntries().forEach((entry) => (globalThis.longest = Math.max(globalThis.longest, entry.duration)));
    new PerformanceObserver(note).observe({ type: "longtask", buffered: true });
  });
  await isLive(page);
  await rowOf(page, batches.at(-1)).waitFor();
  const scroller = page.locator(".scroller");
  const scrolled = async (share) => {
    await scroller.evaluate((element, to) => (element.scrollTop = to * element.scrollHeight), share);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    return nodes(page);
  };
  const counts = [];
  while (!(await page.locator(".total").textContent()).startsWith("1,000 batches")) {
    counts.push(await scrolled(1));
  }
  for (let step = 0; step <= 40; step += 1) counts.push(await scrolled(step / 40));
  await rowOf(page, batches[0]).waitFor();
  assert.ok(Math.max(...counts) < 2_500, `${Math.max(...counts)} elements`);
  t.diagnostic(`the list: at most ${Math.max(...counts)} elements`);

  // All of them move at once; what is in sight is read again, a few at a time.
  let readings = 0;
  page.on("request", (request) => (readings += Number(request.url().endsWith("/status"))));
  await it.server.ask("POST", "/v1/retry-jobs", { filter: {}, phase: "nlp", per_second: 1000 });
  while ((await it.server.attempts(batches[0], "nlp")).length < 2) await it.server.advance(1_000);
  await it.server.settled(batches[0]);
  await says(rowOf(page, batches[0]), "attempt 2");
  t.diagnostic(`${readings} readings while 1,000 batches moved`);

  await rowOf(page, batches[0]).getByRole("link").click();
  await says(page.getByRole("grid"), "essay-100.txt");
  await says(cardOf(page, "nlp"), "100 came out");
  const inGrid = await nodes(page);
  assert.ok(inGrid < 3_500, `${inGrid} elements`);
  const first = page.locator(".grid tbody th").first();
  await first.focus();
  for (let step = 0; step < 99; step += 1) await page.keyboard.press("ArrowDown");
  await until(page, () => page.evaluate(() => document.activeElement.textContent === "essay-100.txt"));
  const longest = await page.evaluate(() => Math.round(globalThis.longest));
  t.diagnostic(`a batch: ${inGrid} elements; the longest task took ${longest} ms`);
  assert.deepEqual(page.wrong, []);
});
