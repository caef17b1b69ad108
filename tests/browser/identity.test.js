// Who asks: a name, or a token where the server wants one.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { cardOf, dialogOf, isLive, picture, rowOf, says, stage } from "./browser.js";
import { nlpFailed } from "./server.js";

const SECRET = "a secret of the browser's tests, long enough";
const folder = mkdtempSync(join(tmpdir(), "rephase-browser-"));
const file = join(folder, "secret");
writeFileSync(file, SECRET);
after(() => rmSync(folder, { recursive: true }));

const it = stage({ options: ["--latency-ms", "30", "--jwt-secret-file", file] });

function tokenOf(sub, seconds = 3_600) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub, exp: Math.floor(Date.now() / 1_000) + seconds, aud: "huleedu-platform", iss: "huleedu-identity-service" };
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

test("a token that expires while a retry is confirmed is given anew, and nothing that was written is lost", async () => {
  const [batch] = await it.server.seed(nlpFailed());
  const page = await it.open(`/batches/${batch}`, { user: null });
  await dialogOf(page).getByLabel("Bearer token").fill(tokenOf("teacher-7"));
  await page.keyboard.press("Enter");
  await isLive(page);
  await cardOf(page, "nlp").getByRole("button", { name: "Retry nlp" }).click();
  await says(dialogOf(page), "2, at 3 essays");
  await dialogOf(page).getByLabel("Reason").fill("it is installed now");
  await it.server.advance(2 * 3_600_000);
  await dialogOf(page).getByRole("button", { name: "Retry", exact: true }).click();
  await says(dialogOf(page), "the token has expired");
  assert.equal(await dialogOf(page).getByText("401 ·").count(), 1, "it is said once");
  await says(page.locator("#live"), "not live");
  await picture(page, "expired-light");
  await dialogOf(page).getByRole("button", { name: "Give another token…" }).click();
  await dialogOf(page).last().getByLabel("Bearer token").fill(tokenOf("teacher-7", 24 * 3_600));
  await page.keyboard.press("Enter");
  await isLive(page);
  await says(dialogOf(page), "2, at 3 essays");
  await dialogOf(page).getByRole("alert").first().waitFor({ state: "detached" });
  await dialogOf(page).getByRole("button", { name: "Retry", exact: true }).click();
  await page.locator(".attempts > li", { hasText: "“it is installed now”" }).waitFor();
});
