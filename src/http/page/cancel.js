// Stops what waits or runs of a batch.

import { ask, ofBatch, tell } from "./api.js";
import { curlButton } from "./curl.js";
import { open, problemNote } from "./dialog.js";
import { announce, fill, h, say } from "./dom.js";
import { newKey, reasonField } from "./retry.js";
import { short, titled } from "./words.js";

/**
 * Opens the dialog. `running()` are the phases that wait or run; the `update` that comes back is called when they are others.
 * A batch moves all the time while it runs, so what is asked for is about the batch as it is then, whatever its version.
 */
export function openCancel({ batchId, running }) {
  const key = newKey();
  let shown = null;
  const trouble = h("div", {});
  const what = h("p", { role: "status" });
  const reason = reasonField("Reason", () => update());
  const request = () => ({
    method: "POST",
    path: ofBatch(batchId, "cancel"),
    body: reason.read() ? { reason: reason.read() } : {},
    headers: { "Idempotency-Key": key },
  });

  function update() {
    const names = running().map(titled).join(", ");
    const text = names ? `${names} will be cancelled. What came out before stays, and a cancelled phase can be retried.` : "Nothing of this batch waits or runs any more, so there is nothing to cancel.";
    say(what, text);
    if (shown) shown.button.disabled = !names || reason.isTooLong();
  }

  async function send(close) {
    const { method, path, body, headers } = request();
    try {
      const { body: answer } = await ask(method, path, { body, headers });
      close();
      announce(`Batch ${short(batchId)}: ${answer.phases.map(titled).join(", ") || "nothing"} cancelled`, "good");
      tell("changed", { batchId });
    } catch (problem) {
      fill(trouble, problemNote(problem));
      // It may have ended a moment before.
      tell("changed", { batchId });
    }
  }
  shown = open({
    title: "Cancel what waits or runs",
    back: "batch-title",
    body: [
      what,
      reason.element,
      trouble,
    ],
    submit: { label: "Cancel the pipeline", run: send, tone: "danger" },
    extra: [curlButton(request, "cancel")],
    first: reason.area,
  });
  update();
  return { update };
}
