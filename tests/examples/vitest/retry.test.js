import { expect } from "vitest";
import { test } from "./rephase.js";

test("a failed phase is retried alone", async ({ rephase }) => {
  await rephase.faults([{ phase: "nlp", attempts: [1], error_code: "NLP_SERVICE_ERROR", category: "permanent" }]);
  const batch = await rephase.readyBatch(["I recieve letters.", "Me too."]);
  await rephase.ask("POST", `/v1/batches/${batch}/pipelines`, { requested_pipeline: "ai_feedback" });
  await rephase.advance(60_000);
  const failed = (await rephase.status(batch)).pipeline_state.nlp;
  expect(failed).toMatchObject({ status: "failed", error_info: { error_code: "NLP_SERVICE_ERROR" } });

  const retried = await rephase.ask("POST", `/v1/batches/${batch}/retry-phase`, { phase_name: "nlp" });
  expect(retried.attempt).toBe(2);
  await rephase.advance(60_000);
  expect((await rephase.status(batch)).status).toBe("completed_successfully");
  const triggers = (await rephase.attempts(batch, "nlp")).map((attempt) => attempt.trigger);
  expect(triggers).toEqual(["pipeline", "user"]);
});

test("nothing is left of the test before", async ({ rephase }) => {
  expect((await rephase.ask("GET", "/v1/batches")).batches).toEqual([]);
  await expect(rephase.status("01a20b9b-6bc0-7113-af41-d19ebbd8cbcb")).rejects.toThrow("404");
});
