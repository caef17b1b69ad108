// Who asks: a name, or a token where the server wants one.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { dialogOf, isLive, rowOf, says, stage } from "./browser.js";
import { nlpFailed } from "./server.js";

const SECRET = "a secret of the browser's tests, long enough";
const folder = mkdtempSync(join(tmpdir(), "rephase-browser-"));
const file = join(folder, "secret");
writeFileSync(file, SECRET);
after(() => rmSync(folder, { recursive: true }));

const it = stage({ options: ["--latency-ms", "30", "--jwt-secret-file", file] });

function tokenOf(sub) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub, exp: Math.floor(Date.now() / 1_000) + 3_600, aud: "huleedu-platform", iss: "huleedu-identity-service" };
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

test("where the server wants a token it is asked for, with the server's words, and not kept for good", async () => {
  const page = await it.open("/batches");
  await says(dialogOf(page), "Send a token");
  assert.equal(await page.evaluate(() => document.activeElement.name), "token");
  const token = tokenOf("teacher-7");
  await dialogOf(page).getByLabel("Bearer token").fill(token);
  await page.keyboard.press("Enter");
  await isLive(page);
  const stored = await page.evaluate(() => JSON.stringify({ ...localStorage }));
  assert.ok(stored.includes("teacher-7") && !stored.includes(token), "no token outlives the tab");
  await page.reload();
  await isLive(page);
});

test("who a token names is who somebody is", async () => {
  const [batch] = await it.server.seed({ user_id: "åsa", missing: 1 });
  const page = await it.open("/batches", { user: null });
  await dialogOf(page).getByLabel("Bearer token").fill(tokenOf("åsa"));
  await page.keyboard.press("Enter");
  await isLive(page);
  assert.equal(await page.locator("#who").textContent(), "åsa");
  await says(rowOf(page, batch), "waiting for essays");
});

test("a token that is refused is said to be", async () => {
  const page = await it.open("/batches", { user: null });
  await dialogOf(page).getByLabel("Bearer token").fill(`${tokenOf("teacher-7")}x`);
  await page.keyboard.press("Enter");
  await says(dialogOf(page).locator(".note.bad"), /\w+/);
  await says(page.locator("#live"), "not live");
});

test("one connection too many is said, and the page goes on by asking", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const listening = new AbortController();
  const headers = { Authorization: `Bearer ${tokenOf("teacher-7")}` };
  const listen = () => fetch(`${it.server.url}/v1/notifications/stream`, { headers, signal: listening.signal });
  await Promise.all([1, 2, 3, 4, 5].map(listen));
  const page = await it.open("/batches", { user: null });
  await dialogOf(page).getByLabel("Bearer token").fill(tokenOf("teacher-7"));
  await page.keyboard.press("Enter");
  await says(page.locator("#live"), "other tabs of yours are live");
  await it.server.retry(batch, { phase_name: "nlp" }, tokenOf("teacher-7"));
  await rowOf(page, batch).getByText("completed").nth(2).waitFor();
  listening.abort();
  await isLive(page);
});
