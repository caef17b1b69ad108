// The batches of a user: filtered, searched, and moving by themselves.

import { get, happenings, ofBatch, summaryOf, withQuery } from "./api.js";
import { openBulk } from "./bulk.js";
import { problemNote } from "./dialog.js";
import { fill, h, say } from "./dom.js";
import { emptyNote } from "./empty.js";
import { filterForm, fits, isSet } from "./filters.js";
import { isBefore, placed, Poll } from "./poll.js";
import { rowOf } from "./row.js";
import { Rows } from "./rows.js";
import * as words from "./words.js";

const { PHASES } = words;
const PAGE = 200;

/** So many batches are held at the most; who has more filters. */
const MOST = 20_000;

/** Rows that are read again at once. */
const AT_ONCE = 5;

/** Whether nothing of a row can be another. That it is stuck comes with time alone. */
const isSame = (one, other) => one.version === other.version && one.stuck_since === other.stuck_since;

/** The button that retries a phase of all that the filter asks for, and why it cannot be pressed. */
function bulkButton(open) {
  const button = h("button", { type: "button", data: { key: "bulk" }, "aria-describedby": "bulk-why", onclick: open });
  const why = h("p", { class: "small", id: "bulk-why", hidden: true }, "A search cannot be retried, a filter can.");
  const show = ({ isFiltered, search, number, isComplete }) => {
    const all = isComplete && number > 1 ? `all ${words.count(number, "batch", "batches")}` : "all batches";
    say(button, isFiltered ? "Retry all of these…" : `Retry ${all}…`);
    button.disabled = Boolean(search) || (number === 0 && isComplete);
    why.hidden = !search;
  };
  return { button, why, show };
}

/** The list of batches. */
export function listView(query) {
  const batches = new Map();
  const dirty = new Set();
  const ended = new AbortController();
  let [cursor, isComplete, isLoading, generation, search, reading, hasFailed] = [null, false, false, 0, "", 0, false];
  let closing = new AbortController();
  let inSight = [];
  // Where each page that was loaded begins.
  const starts = [{ cursor: null, after: null }];

  const total = h("p", { class: "total", role: "status" });
  const problem = h("div", {});
  const table = h("table", { class: "batches" });
  const body = h("tbody", {});
  const scroller = h("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "List of batches" }, table);
  const empty = h("div", { hidden: true });
  const heads = ["Batch", "Status", ...PHASES.map(words.titled)].map((text) => h("th", { scope: "col" }, text));
  table.append(
    h("caption", { class: "hidden" }, "Batches, the newest first"),
    h("thead", {}, h("tr", { "aria-rowindex": 1 }, heads, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Actions")))),
    body,
  );
  const bulk = bulkButton(() => openBulk(filters.read()));
  const filters = filterForm(query, {
    onchange: () => {
      const address = `#${withQuery("/batches", filters.read())}`;
      // Each filter is a place of its own, to go back to.
      if (address !== location.hash) history.pushState(null, "", address);
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
  const poll = new Poll({ inSight: () => inSight, starts, query: filters.read, size: PAGE, onread: take });

  function showAll() {
    const found = [...batches.values()].filter((batch) => !search || batch.batch_id.includes(search));
    found.sort((one, other) => (isBefore(one, other) ? -1 : 1));
    table.setAttribute("aria-rowcount", isComplete ? found.length + 1 : -1);
    const more = isComplete || batches.size >= MOST ? "" : ", and more";
    const isFiltered = isSet(filters.read());
    const isEmpty = found.length === 0 && isComplete && !hasFailed;
    const none = search || isFiltered ? "No batch fits" : "No batch yet";
    say(total, isEmpty ? none : found.length === 0 ? "" : `${words.count(found.length, "batch", "batches")}${more}`);
    bulk.show({ isFiltered, search, number: found.length, isComplete });
    scroller.hidden = found.length === 0 && isComplete;
    empty.hidden = !isEmpty;
    if (isEmpty) fill(empty, emptyNote({ search, isFiltered, clear: filters.clear }));
    rows.show(found);
  }

  const put = (batch) => batches.set(batch.batch_id, placed(batch));

  async function loadMore() {
    if (isLoading || isComplete || batches.size >= MOST) return;
    isLoading = true;
    const mine = generation;
    try {
      const { body: page } = await get(withQuery("v1/batches", { ...filters.read(), limit: PAGE, cursor }), { signal: closing.signal });
      if (mine !== generation) return;
      page.batches.forEach(put);
      cursor = page.next_cursor;
      if (cursor && page.batches.length > 0) starts.push({ cursor, after: page.batches.at(-1) });
      isComplete = cursor === null;
      fill(problem);
      showAll();
    } catch (error) {
      if (error.name === "AbortError" || mine !== generation) return;
      isComplete = hasFailed = true;
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
    starts.length = 1;
    [cursor, isComplete, isLoading, hasFailed] = [null, false, false, false];
    scroller.scrollTop = 0;
    loadMore();
    poll.arm();
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
      if (error.status !== 404 || !batches.delete(id)) return;
      showAll();
    }
  }

  /** What was read again, which covers a part of the list: rows that are the same are left alone. */
  function take(found, isCovered) {
    if (hasFailed) return reload();
    const came = new Set(found.map((batch) => batch.batch_id));
    let isNew = false;
    for (const batch of found) {
      const before = batches.get(batch.batch_id);
      if (before && (before.version > batch.version || isSame(before, batch))) continue;
      put(batch);
      isNew = true;
      rows.update(batch);
    }
    // One that did not come has left the filter, or is gone.
    for (const batch of inSight) if (!came.has(batch.batch_id) && isCovered(batch) && fits(batch, filters.read())) dirty.add(batch.batch_id);
    if (isNew) showAll();
    flush();
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

  const moved = ({ detail }) => {
    dirty.add(detail.batchId);
    flush();
  };
  const { signal } = ended;
  happenings.addEventListener("moved", moved, { signal });
  happenings.addEventListener("changed", moved, { signal });
  // The stream was away: what is in sight may have moved meanwhile. A list that could not be read is read now.
  happenings.addEventListener("resync", () => (hasFailed ? reload() : poll.now()), { signal });

  const element = h(
    "section",
    { class: "list" },
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Batches"), total, bulk.why, bulk.button),
    filters.element,
    problem,
    scroller,
    empty,
  );
  // The address says what the list is asked for, and nothing that it is not asked for.
  if (String(query)) history.replaceState(null, "", `#${withQuery("/batches", filters.read())}`);
  showAll();
  loadMore();
  const close = () => {
    poll.close();
    closing.abort();
    ended.abort();
    rows.close();
  };
  return { title: "Batches", element, close };
}
