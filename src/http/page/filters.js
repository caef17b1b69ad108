// What the list is asked for.

import { ERROR_CODES } from "./codes.js";
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
  const registered = Date.parse(batch.registered_at);
  return (
    (!filter.status || batch.status === filter.status) &&
    (!filter.stuck || Boolean(batch.stuck_since)) &&
    (!filter.since || registered >= Date.parse(filter.since)) &&
    (!filter.until || registered < Date.parse(filter.until)) &&
    (!needsPhase || phases.some(isAbout))
  );
}

/** Whether a filter asks for anything. */
export const isSet = (filter) => Object.values(filter).some(Boolean);

/** A time of the address as a field has it, which is in the time of this place; empty where it is none. */
function localTime(text) {
  const at = new Date(text ?? "");
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().replace(/(:00)?\.\d+Z$/, "");
}

/** The same for the server. */
const wireTime = (text) => (text ? new Date(text).toISOString() : "");

/** The form above the list. `onchange` hears each new filter, `onsearch` each new text. */
export function filterForm(query, { onchange, onsearch }) {
  const status = select("status", words.optionsOf(words.BATCH_STATUSES), query.get("status") ?? "");
  const phase = select("phase", words.optionsOf(PHASES), query.get("phase") ?? "");
  const phaseStatus = select("phase_status", words.optionsOf(words.PHASE_STATUSES), query.get("phase_status") ?? "");
  const codes = [["", "any"], ...ERROR_CODES.map((code) => [code, code])];
  const code = select("error_code", codes, query.get("error_code")?.toUpperCase() ?? "");
  const moment = (name) => h("input", { type: "datetime-local", name, max: "9999-12-31T23:59", value: localTime(query.get(name)) });
  const [since, until] = [moment("since"), moment("until")];
  const stuck = tick("stuck only", { name: "stuck", checked: query.get("stuck") === "true" });
  const search = h("input", { type: "search", name: "search", autocomplete: "off", spellcheck: "false", placeholder: "id, or a part of it" });
  const read = () => ({
    status: status.value,
    phase: phase.value,
    phase_status: phaseStatus.value,
    error_code: code.value,
    since: wireTime(since.value),
    until: wireTime(until.value),
    stuck: stuck.box.checked ? "true" : "",
  });
  const clear = () => {
    for (const control of [search, status, phase, phaseStatus, code, since, until]) control.value = "";
    stuck.box.checked = false;
    onsearch("");
    onchange();
  };
  // On a small screen the list comes first: what filters it is there for whoever asks, and where it does filter.
  const fold = h("button", { type: "button", class: "fold", "aria-expanded": String(isSet(read())), data: { key: "fold" } }, "Filters");
  fold.addEventListener("click", () => fold.setAttribute("aria-expanded", String(fold.getAttribute("aria-expanded") !== "true")));
  search.addEventListener("input", () => onsearch(search.value.trim().toLowerCase()));
  const element = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Batches", onsubmit: (event) => event.preventDefault() },
    field("Search", search),
    fold,
    field("Status", status),
    field("Phase", phase),
    field("Phase status", phaseStatus),
    field("Error code", code),
    h("div", { class: "moment" }, field("Registered since", since)),
    h("div", { class: "moment" }, field("Registered before", until)),
    stuck.element,
    h("button", { type: "button", class: "quiet", onclick: clear }, "Clear"),
  );
  element.addEventListener("change", (event) => event.target !== search && onchange());
  return { element, read, clear };
}
