// What the list is asked for.

import { field, h, select, tick } from "./dom.js";
import * as words from "./words.js";

const { PHASES } = words;

/** Whether a batch, as it is now, is one that the filter asks for. */
export function fits(batch, filter) {
  const phases = Object.entries(batch.phases).filter(([phase]) => !filter.phase || phase === filter.phase);
  const isAbout = ([, detail]) =>
    (!filter.phase_status || detail.status === filter.phase_status) &&
    (!filter.error_code || detail.error_code === filter.error_code);
  const needsPhase = filter.phase || filter.phase_status || filter.error_code;
  return (
    (!filter.status || batch.status === filter.status) &&
    (!filter.stuck || Boolean(batch.stuck_since)) &&
    (!needsPhase || phases.some(isAbout))
  );
}

/** The form above the list. `onchange` hears each new filter, `onsearch` each new text. */
export function filterForm(query, { onchange, onsearch }) {
  const status = select("status", words.optionsOf(words.BATCH_STATUSES), query.get("status") ?? "");
  const phase = select("phase", words.optionsOf(PHASES), query.get("phase") ?? "");
  const phaseStatus = select("phase_status", words.optionsOf(words.PHASE_STATUSES), query.get("phase_status") ?? "");
  const codes = h("datalist", { id: "error-codes" });
  const code = h("input", { name: "error_code", list: "error-codes", autocomplete: "off", spellcheck: "false", value: query.get("error_code") ?? "" });
  const stuck = tick("stuck only", { name: "stuck", checked: query.get("stuck") === "true" });
  const search = h("input", { type: "search", name: "search", autocomplete: "off", spellcheck: "false", placeholder: "id, or a part of it" });
  const read = () => ({
    status: status.value,
    phase: phase.value,
    phase_status: phaseStatus.value,
    error_code: code.value.trim().toUpperCase(),
    stuck: stuck.box.checked ? "true" : "",
  });
  const clear = () => {
    for (const control of [status, phase, phaseStatus, code]) control.value = "";
    stuck.box.checked = false;
    onchange();
  };
  search.addEventListener("input", () => onsearch(search.value.trim().toLowerCase()));
  const element = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Batches", onsubmit: (event) => event.preventDefault() },
    field("Search", search),
    field("Status", status),
    field("Phase", phase),
    field("Phase status", phaseStatus),
    field("Error code", code),
    codes,
    stuck.element,
    h("button", { type: "button", class: "quiet", onclick: clear }, "Clear"),
  );
  element.addEventListener("change", (event) => event.target !== search && onchange());
  const known = new Set();
  const learn = (batch) => {
    for (const { error_code: found } of Object.values(batch.phases)) {
      if (!found || known.has(found)) continue;
      known.add(found);
      codes.append(h("option", { value: found }));
    }
  };
  return { element, read, learn };
}
