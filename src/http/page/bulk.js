// A bulk retry: one phase of every batch that fits the filter of the list.

import { ask, Problem } from "./api.js";
import { curlButton } from "./curl.js";
import { open, problemNote } from "./dialog.js";
import { announce, field, fill, h, select, tick } from "./dom.js";
import { newKey, reasonField } from "./retry.js";
import { count, PHASES, plainly, time, titled } from "./words.js";

/** A filter as people read it. */
export function filterText(filter) {
  const read = (name, value) => (name === "since" || name === "until" ? time(value) : PHASES.includes(value) ? titled(value) : String(value).replaceAll("_", " "));
  const called = { since: "registered since", until: "registered before" };
  const parts = Object.entries(filter).map(([name, value]) => (value === true ? name : `${called[name] ?? name.replaceAll("_", " ")} ${name === "error_code" ? value : read(name, value)}`));
  return parts.length > 0 ? parts.join(", ") : "all batches";
}

function previewView(plan) {
  const refused = plan.would_be_refused.map(({ error, count: number }) => h("li", {}, `${count(number, "batch", "batches")}: ${plainly(error)}`));
  return h(
    "div",
    { class: "note" },
    h("p", {}, `${count(plan.total, "batch fits", "batches fit")}; ${plan.would_be_retried.toLocaleString("en")} would be retried.`),
    refused.length > 0 && h("p", {}, "Refused would be:"),
    refused.length > 0 && h("ul", {}, refused),
  );
}

/** Opens the dialog, with the filter of the list: its members, empty where they are not set. */
export function openBulk(given) {
  const set = Object.entries(given).filter(([, value]) => value !== "");
  const filter = Object.fromEntries(set.map(([name, value]) => [name, name === "stuck" ? true : value]));
  let [shown, plan, generation, key] = [null, null, 0, newKey()];
  const phase = select("phase", PHASES.map((name) => [name, titled(name)]), filter.phase ?? "nlp");
  const onlyFailed = tick("Failed essays only", { name: "only_failed" });
  const rate = h("input", { type: "number", name: "per_second", min: 1, max: 1_000, value: 10, required: true });
  const reason = reasonField("Reason", () => update());
  const place = h("div", { class: "plan", "aria-live": "polite" });
  const trouble = h("div", {});
  const wish = () => ({
    filter,
    phase: phase.value,
    per_second: Number(rate.value),
    ...(onlyFailed.box.checked ? { only_failed: true } : {}),
    ...(reason.read() ? { reason: reason.read() } : {}),
  });
  const request = () => ({ method: "POST", path: "v1/retry-jobs", body: wish(), headers: { "Idempotency-Key": key } });

  function update() {
    if (shown) shown.button.disabled = !(plan?.would_be_retried > 0) || reason.isTooLong();
  }

  async function look() {
    const mine = (generation += 1);
    const { reason: _, ...body } = wish();
    let view;
    let answered = null;
    try {
      if (!rate.checkValidity()) throw new Problem(`Batches a second: ${rate.validationMessage}`);
      answered = (await ask("POST", "v1/retry-jobs", { body: { ...body, dry_run: true } })).body;
      view = previewView(answered);
    } catch (problem) {
      view = problemNote(problem);
    }
    if (mine !== generation) return;
    [plan, key] = [answered, newKey()];
    fill(place, view);
    update();
  }

  async function send(close) {
    shown.button.disabled = true;
    const { method, path, body, headers } = request();
    try {
      const { body: job } = await ask(method, path, { body, headers });
      close();
      announce(`A bulk retry of ${count(job.total, "batch", "batches")} has begun`, "good");
      location.hash = `#/retry-jobs/${job.job_id}`;
    } catch (problem) {
      fill(trouble, problemNote(problem));
      if (problem.status) await look();
      else update();
    }
  }

  for (const control of [phase, onlyFailed.box, rate]) control.addEventListener("change", look);
  shown = open({
    title: "Retry a phase of many batches",
    size: "wide",
    back: "bulk",
    body: [
      h("p", {}, "Filter: ", h("strong", {}, filterText(filter)), ". Which batches these are is fixed when the retry begins."),
      h("div", { class: "row" }, field("Phase", phase), field("Batches a second", rate)),
      onlyFailed.element,
      place,
      reason.element,
      trouble,
    ],
    submit: { label: "Retry them", run: send },
    extra: [curlButton(request, "bulk retry")],
    first: phase,
  });
  update();
  look();
}
