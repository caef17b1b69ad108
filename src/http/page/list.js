// The batches of a user: filtered, searched, and moving by themselves.

import { get, happenings, ofBatch, summaryOf, withQuery } from "./api.js";
import { openBulk } from "./bulk.js";
import { problemNote } from "./dialog.js";
import { fill, h } from "./dom.js";
import { filterForm, fits } from "./filters.js";
import { rowOf } from "./row.js";
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
  // The address says what the list is asked for, and nothing that it is not asked for.
  if (String(query)) history.replaceState(null, "", `#${withQuery("/batches", filters.read())}`);
  loadMore();
  const close = () => {
    clearInterval(poll);
    closing.abort();
    ended.abort();
    rows.close();
  };
  return { title: "Batches", element, close };
}
