// The server is away, and comes back.

import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { isLive, picture, rowOf, says, stage } from "./browser.js";
import { complete, nlpFailed } from "./server.js";

const it = stage();

/** A way to the server that can be closed and opened again. */
async function way(port) {
  const connections = new Set();
  const server = createServer((from) => {
    const to = connect(Number(new URL(it.server.url).port), "127.0.0.1");
    for (const [one, other] of [[from, to], [to, from]]) {
      connections.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  server.listen(port ?? 0, "127.0.0.1");
  await once(server, "listening");
  const close = async () => {
    const closed = once(server, "close");
    server.close();
    for (const connection of connections) connection.destroy();
    await closed;
  };
  return { port: server.address().port, close };
}

test("where the server is away the page says so, asks little, and goes on by itself", async () => {
  const [batch] = await it.server.seed(nlpFailed(), ...Array.from({ length: 15 }, () => complete()));
  const first = await way();
  const page = await it.open();
  await page.goto(`http://127.0.0.1:${first.port}/#/batches`);
  await isLive(page);
  await rowOf(page, batch).waitFor();
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await first.close();
  await says(page.locator("#away"), "The server cannot be reached. What is shown is how things stood at");
  await picture(page, "away-light");
  assert.ok(await rowOf(page, batch).isVisible(), "what was there is still in sight");
  await it.server.retry(batch, { phase_name: "nlp" });
  const second = await way(first.port);
  await isLive(page);
  await page.locator("#away").waitFor({ state: "hidden" });
  await says(rowOf(page, batch), "attempt 2");
  const readings = asked.filter((path) => path.endsWith("/status"));
  assert.deepEqual(readings, [], "no request for each row");
  await page.close();
  await second.close();
});
