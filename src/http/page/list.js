// The batches of a user: filtered, searched, and moving by themselves.

import { get, happenings, ofBatch, summaryOf, withQuery } from "./api.js";
import { openBulk } from "./bulk.js";
import { problemNote } from "./dialog.js";
import { field, fill, h, say, select, tick } from "./dom.js";
import { openRetry } from "./retry.js";
import { Rows } from "./rows.js";
import * as words from "./words.js";

const { PHASES } = words;
const PAGE = 200;

/** So many batches are held at the most; who has more filters. */
const MOST = 20_000;

/** Rows that are read again at once. */
const AT_ONCE = 5;

/** How often rows in sight that are at work are read again: what is dispatched and begun is not announced. */
const POLL_MS = 2_000;

const FILTERS = ["status", "phase", "phase_status", "error_code", "stuck"];

/** A status with its sign. */
export function chip(status, more) {
  const { label, sign, tone } = words.look(status);
  return h(
    "span",
    { class: "chip", data: { tone }, title: String(status).replaceAll("_", " ") },
    h("span", { "aria-hidden": "true", class: "sign" }, sign),
    h("span", {}, more ? `${label} ${more}` : label),
  );
}

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
  return [chip(detail.status, text), second && h("span", { class: "second", title: second }, second)];
}

/** A row, whose link and button stay the same elements while the rest changes. */
function rowOf(batch, filterOf) {
  const link = h("a", { href: `#/batches/${batch.batch_id}`, title: batch.batch_id, data: { key: `link-${batch.batch_id}` } }, words.short(batch.batch_id));
  const second = h("span", { class: "second" });
  const status = h("td", {});
  const cells = PHASES.map(() => h("td", { class: "phase" }));
  const button = h("button", { type: "button", data: { key: `retry-${batch.batch_id}` } });
  const element = h(
    "tr",
    { data: { key: batch.batch_id } },
    h("th", { scope: "row" }, link, second),
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
    say(second, `${now.course_code} · ${now.essays_received}/${now.expected_essay_count} essays · ${words.time(now.registered_at)}`);
    const flags = [now.stuck_since && "stuck", now.stale.length > 0 && "stale", !filterOf(now) && "left the filter"].filter(Boolean);
    status.replaceChildren(chip(now.status), ...(flags.length ? [h("span", { class: "second flag" }, flags.join(" · "))] : []));
    cells.forEach((cell, place) => cell.replaceChildren(...phaseCell(now.phases[PHASES[place]]).filter(Boolean)));
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

/** Whether a batch, as it is now, is one that the filter asks for. */
function fits(batch, filter) {
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
function filterForm(query, { onchange, onsearch }) {
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

/** The list of batches. */
export function listView(query) {
  const batches = new Map();
  const dirty = new Set();
  const ended = new AbortController();
  let [cursor, isComplete, isLoading, generation, search, reading] = [null, false, false, 0, "", 0];
  let closing = new AbortController();
  let inSight = [];

  const total = h("p", { class: "total", role: "status" });
  const problem = h("div", {});
  const table = h("table", { class: "batches" });
  const body = h("tbody", {});
  const scroller = h("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "List of batches" }, table);
  const heads = ["Batch", "Status", ...PHASES.map(words.titled)].map((text) => h("th", { scope: "col" }, text));
  table.append(
    h("caption", { class: "hidden" }, "Batches, the newest first"),
    h("thead", {}, h("tr", { "aria-rowindex": 1 }, heads, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Actions")))),
    body,
  );
  const filters = filterForm(query, {
    onchange: () => {
      history.replaceState(null, "", `#${withQuery("/batches", filters.read())}`);
      reload();
    },
    onsearch: (text) => {
      search = text;
      showAll();
      if (search) find();
    },
  });
  const rows = new Rows({
    scroller,
    body,
    columns: PHASES.length + 3,
    key: (batch) => batch.batch_id,
    make: (batch) => rowOf(batch, (now) => fits(now, filters.read())),
    onrange: (items, last) => {
      inSight = items;
      flush();
      if (last >= rows.items.length - PAGE / 2) loadMore();
    },
  });

  function showAll() {
    const found = [...batches.values()].filter((batch) => !search || batch.batch_id.includes(search));
    found.sort((one, other) => (one.registered_at < other.registered_at ? 1 : one.registered_at > other.registered_at ? -1 : one.batch_id < other.batch_id ? 1 : -1));
    table.setAttribute("aria-rowcount", isComplete ? found.length + 1 : -1);
    const more = isComplete || batches.size >= MOST ? "" : ", and more";
    const text = found.length === 0 && isComplete ? "No batch fits" : `${words.count(found.length, "batch", "batches")}${more}`;
    if (total.textContent !== text) total.textContent = text;
    rows.show(found);
  }

  function put(batch) {
    batches.set(batch.batch_id, batch);
    filters.learn(batch);
  }

  async function loadMore() {
    if (isLoading || isComplete || batches.size >= MOST) return;
    isLoading = true;
    const mine = generation;
    try {
      const { body: page } = await get(withQuery("v1/batches", { ...filters.read(), limit: PAGE, cursor }), { signal: closing.signal });
      if (mine !== generation) return;
      page.batches.forEach(put);
      cursor = page.next_cursor;
      isComplete = cursor === null;
      fill(problem);
      showAll();
    } catch (error) {
      if (error.name === "AbortError" || mine !== generation) return;
      isComplete = true;
      fill(problem, problemNote(error));
      showAll();
    } finally {
      if (mine === generation) isLoading = false;
    }
    if (search) find();
  }

  function reload() {
    generation += 1;
    closing.abort();
    closing = new AbortController();
    batches.clear();
    dirty.clear();
    [cursor, isComplete, isLoading] = [null, false, false];
    scroller.scrollTop = 0;
    loadMore();
  }

  /** Looks for what is searched in what is not loaded yet, a whole id by asking for it. */
  async function find() {
    if (words.isId(search) && !batches.has(search)) await read(search);
    else if (rows.items.length === 0 || !isComplete) await loadMore();
  }

  /** Reads one batch again. One that was not in the list comes into it where it fits. */
  async function read(id) {
    const mine = generation;
    try {
      const now = summaryOf(await get(ofBatch(id, "status"), { signal: closing.signal }));
      if (mine !== generation) return;
      const before = batches.get(id);
      if (before && before.version > now.version) return;
      if (!before && id !== search && !fits(now, filters.read())) return;
      put(now);
      if (before) rows.update(now);
      showAll();
    } catch (error) {
      if (error.status === 404) batches.delete(id);
    }
  }

  /** Reads those again that moved and are in sight, or new. The others are when they come in sight. */
  function flush() {
    const seen = new Set(inSight.map((batch) => batch.batch_id));
    for (const id of dirty) {
      if (reading >= AT_ONCE) return;
      if (batches.has(id) && !seen.has(id)) continue;
      dirty.delete(id);
      reading += 1;
      read(id).finally(() => {
        reading -= 1;
        flush();
      });
    }
  }

  const poll = setInterval(() => {
    if (document.hidden) return;
    for (const { batch_id: id } of inSight) if (batches.get(id)?.status === "processing") dirty.add(id);
    flush();
  }, POLL_MS);
  const moved = ({ detail }) => {
    dirty.add(detail.batchId);
    flush();
  };
  const { signal } = ended;
  happenings.addEventListener("moved", moved, { signal });
  happenings.addEventListener("changed", moved, { signal });
  happenings.addEventListener("resync", resync, { signal });

  /** The stream was away: what is in sight may have moved meanwhile. */
  function resync() {
    for (const { batch_id: id } of inSight) dirty.add(id);
    flush();
  }

  const element = h(
    "section",
    { class: "list" },
    h(
      "div",
      { class: "heading" },
      h("h1", { tabindex: -1 }, "Batches"),
      total,
      h("button", { type: "button", data: { key: "bulk" }, onclick: () => openBulk(filters.read()) }, "Retry all of these…"),
    ),
    filters.element,
    problem,
    scroller,
  );
  loadMore();
  const close = () => {
    clearInterval(poll);
    closing.abort();
    ended.abort();
    rows.close();
  };
  return { title: "Batches", element, close };
}
