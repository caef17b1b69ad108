// Stops what waits or runs of a batch.

import { ask, ofBatch, tell } from "./api.js";
import { curlButton } from "./curl.js";
import { open, problemNote } from "./dialog.js";
import { announce, fill, h } from "./dom.js";
import { newKey, reasonField } from "./retry.js";
import { short, titled } from "./words.js";

/** Opens the dialog. `etag` is the version of the batch that is in sight. */
export function openCancel({ batchId, running, etag }) {
  const key = newKey();
  let shown = null;
  const trouble = h("div", {});
  const reason = reasonField("Reason", () => shown && (shown.button.disabled = reason.isTooLong()));
  let version = etag;
  const request = () => ({
    method: "POST",
    path: ofBatch(batchId, "cancel"),
    body: reason.read() ? { reason: reason.read() } : {},
    headers: { ...(version ? { "If-Match": version } : {}), "Idempotency-Key": key },
  });
  async function send(close) {
    const { method, path, body, headers } = request();
    try {
      const { body: answer } = await ask(method, path, { body, headers });
      close();
      announce(`Batch ${short(batchId)}: ${answer.phases.map(titled).join(", ") || "nothing"} cancelled`, "good");
      tell("changed", { batchId });
    } catch (problem) {
      // It moves all the time while it runs. Whoever confirms it once more means the batch as it is then.
      if (problem.status === 412) version = null;
      fill(trouble, problemNote(problem));
    }
  }
  shown = open({
    title: "Cancel what waits or runs",
    back: "batch-title",
    body: [
      h("p", {}, `${running.map(titled).join(", ")} will be cancelled. What came out before stays, and a cancelled phase can be retried.`),
      reason.element,
      trouble,
    ],
    submit: { label: "Cancel the pipeline", run: send, tone: "danger" },
    extra: [curlButton(request, "cancel")],
    first: reason.area,
  });
}
