// A batch as a row of the list.

import { breakable, chip, h, say } from "./dom.js";
import { openRetry } from "./retry.js";
import * as words from "./words.js";

const { PHASES } = words;

/** The first phase that ended badly with all before it complete: what a row's button retries. The dialog asks the server. */
function retryOf(batch) {
  for (const phase of PHASES) {
    const status = batch.phases[phase]?.status;
    if (status === "failed" || status === "completed_with_partial_success") return phase;
    if (status && status !== "completed_successfully") return null;
  }
  return null;
}

function phaseCell(detail) {
  if (!detail) return [h("span", { class: "none", "aria-label": "not asked for" }, "·")];
  const { essay_counts: counts, attempts, error_code: code } = detail;
  const hasSome = detail.status === "completed_with_partial_success";
  const second = code ?? (attempts > 1 ? `attempt ${attempts}` : "");
  const text = hasSome ? `${counts.successful}/${counts.total}` : "";
  return [chip(detail.status, text), second && h("span", { class: "second", title: second }, breakable(second))];
}

/** A row, whose link and button stay the same elements while the rest changes. */
export function rowOf(batch, filterOf) {
  const link = h("a", { href: `#/batches/${batch.batch_id}`, title: batch.batch_id, data: { key: `link-${batch.batch_id}` } }, words.short(batch.batch_id));
  const second = h("span", { class: "second" });
  const registered = h("time", { class: "second", datetime: batch.registered_at }, words.time(batch.registered_at));
  const status = h("td", { class: "status" });
  const cells = PHASES.map((name) => h("td", { class: "phase", data: { label: words.titled(name) } }));
  const button = h("button", { type: "button", data: { key: `retry-${batch.batch_id}` } });
  const element = h(
    "tr",
    { data: { key: batch.batch_id } },
    h("th", { scope: "row" }, link, second, registered),
    status,
    cells,
    h("td", { class: "row-actions" }, button),
  );
  let shown;
  let phase;
  button.addEventListener("click", () => openRetry({ batchId: batch.batch_id, phase, back: `link-${batch.batch_id}` }));
  const update = (now) => {
    const state = JSON.stringify([now.version, now.status, now.phases, now.stuck_since, now.stale, filterOf(now)]);
    if (state === shown) return;
    if (shown !== undefined && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      element.animate([{ backgroundColor: "var(--moved)" }, {}], { duration: 1_500 });
    }
    shown = state;
    say(second, `${now.course_code} · ${now.essays_received}/${words.count(now.expected_essay_count, "essay")}`);
    const flags = [now.stuck_since && "stuck", now.stale.length > 0 && "stale", !filterOf(now) && "left the filter"].filter(Boolean);
    status.replaceChildren(chip(now.status), ...(flags.length ? [h("span", { class: "second flag" }, flags.join(" · "))] : []));
    cells.forEach((cell, place) => cell.replaceChildren(...phaseCell(now.phases[PHASES[place]]).filter(Boolean)));
    cells.forEach((cell, place) => cell.toggleAttribute("data-unasked", !now.phases[PHASES[place]]));
    phase = retryOf(now);
    const isFocused = document.activeElement === button;
    button.hidden = !phase;
    if (isFocused && button.hidden) link.focus();
    if (phase) {
      say(button, `Retry ${words.titled(phase)}…`);
      button.setAttribute("aria-label", `Retry ${words.titled(phase)} of batch ${words.short(now.batch_id)}`);
    }
  };
  return { element, update };
}
