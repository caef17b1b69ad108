// A browser, a server, and pages of one on the other.

import { after, afterEach, before } from "node:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { OWNER, Server } from "./server.js";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long is waited for what has to come. */
const PATIENCE_MS = 20_000;

/** The server and the browser of a file of tests; after each test its pages are closed and the server is empty. */
export function stage({ options = ["--latency-ms", "30"] } = {}) {
  const it = { server: null, browser: null };
  const contexts = [];
  before(async () => {
    it.server = await Server.start(...options);
    it.browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
  });
  afterEach(async () => {
    await Promise.all(contexts.splice(0).map((context) => context.close()));
    await it.server.faults([]);
    await it.server.reset();
  });
  after(async () => {
    await it.browser?.close();
    await it.server?.end();
  });

  /** A page at `place` for somebody. It fails the test where the page says that something is wrong. */
  it.open = async (place = "/batches", { user = OWNER, ...more } = {}) => {
    const viewport = { width: 1360, height: 860 };
    const context = await it.browser.newContext({ viewport, permissions: ["clipboard-read", "clipboard-write"], ...more });
    contexts.push(context);
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    page.wrong = [];
    page.on("pageerror", (error) => page.wrong.push(error.stack ?? String(error)));
    page.on("console", (message) => {
      // What is refused by the server is the page's to show; the browser says so too.
      const isAnswer = message.text().startsWith("Failed to load resource");
      if (message.type() === "error" && !isAnswer) page.wrong.push(message.text());
    });
    page.on("request", (request) => {
      const isOwn = request.url().startsWith(it.server.url) || request.url().startsWith("data:");
      if (!isOwn) page.wrong.push(`asked for ${request.url()}`);
    });
    if (user) await context.addInitScript((name) => localStorage.setItem("rephase.user", name), user);
    await page.goto(`${it.server.url}/#${place}`);
    return page;
  };
  return it;
}

/** The row of a batch in the list. */
export const rowOf = (page, id) => page.locator(`tr[data-key="${id}"]`);

/** The open dialog. */
export const dialogOf = (page) => page.locator("dialog[open]");

/** The card of a phase. */
export const cardOf = (page, phase) => page.locator("article", { has: page.locator(`#phase-${phase}`) });

/** What was copied last. */
export const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());

/** Waits until the element says this. */
export const says = (locator, text) => locator.filter({ hasText: text }).first().waitFor();

/** Waits until the page hears what happens. */
export const isLive = (page) => page.locator('#live[data-state="on"]').waitFor();

/** Waits for `is` to be true, which is asked again after every answer that the page gets. */
export async function until(page, is) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await is())) {
    if (Date.now() > deadline) throw new Error(`it did not come about: ${is}`);
    await page.waitForResponse(() => true, { timeout: 1_000 }).catch(() => {});
  }
}

/** A picture for people to look at. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finish())));
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
