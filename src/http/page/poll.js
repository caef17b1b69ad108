// Reads again what is in sight of the list: in one request for all of it, not one for each row.

import { get, withQuery } from "./api.js";

/** How often while something in sight is at work: what is dispatched and begun is not announced. */
const BUSY_MS = 2_000;

/** How often else: a retry that begins elsewhere is not announced either, nor is a batch that is registered. */
const QUIET_MS = 7_000;

/** So many requests for one reading at the most: a page may be short and go on all the same. */
const MOST_PAGES = 4;

/** So many batches are read where only new ones are looked for. */
const NEWEST = 20;

/** A batch with when it was registered as a number, by which the list is ordered. */
export const placed = (batch) => Object.assign(batch, { at: Date.parse(batch.registered_at) });

/** Whether `one` stands before `other` in the list: the newest first. */
export const isBefore = (one, other) =>
  one.at === other.at ? one.batch_id > other.batch_id : one.at > other.at;

/**
 * Reads now and then, while the page can be seen. `inSight()` are the batches in sight, in their order; `starts` the places
 * where a page of the list began (`cursor`, and the batch before it); `query()` what the list is asked for. `onread` hears
 * which batches came, and whether a batch is in the part of the list that they are.
 */
export class Poll {
  constructor({ inSight, starts, query, size, onread }) {
    Object.assign(this, { inSight, starts, query, size, onread });
    this.ended = new AbortController();
    this.isReading = false;
    document.addEventListener("visibilitychange", () => document.hidden || this.now(), { signal: this.ended.signal });
    this.arm();
  }

  close() {
    clearTimeout(this.timer);
    this.ended.abort();
  }

  arm() {
    clearTimeout(this.timer);
    const isBusy = this.inSight().some(({ status }) => status === "processing");
    if (!this.ended.signal.aborted) this.timer = setTimeout(() => this.now(), isBusy ? BUSY_MS : QUIET_MS);
  }

  /** Reads at once; one reading at a time. */
  async now() {
    if (this.isReading) return;
    clearTimeout(this.timer);
    this.isReading = true;
    let isRefused = false;
    try {
      if (!document.hidden) await this.read();
    } catch (error) {
      // Whoever listens says that the server is away. What is refused is refused again until something else is asked for.
      isRefused = error.status >= 400 && error.status < 429;
    }
    this.isReading = false;
    if (!isRefused) this.arm();
  }

  async read() {
    const query = this.query();
    const seen = this.inSight();
    const start = this.starts.findLast(({ after }) => !after || (seen.length > 0 && isBefore(after, seen[0])));
    const newest = start.after ? await this.page(query, null, NEWEST) : { batches: [] };
    const found = [];
    let next = start.cursor;
    let isWhole = false;
    for (let pages = 0; pages < MOST_PAGES && !isWhole; pages += 1) {
      const page = await this.page(query, next, Math.min(this.size, seen.length + NEWEST));
      found.push(...page.batches);
      next = page.next;
      isWhole = next === null || seen.length === 0 || (found.length > 0 && !isBefore(found.at(-1), seen.at(-1)));
    }
    if (withQuery("", query) !== withQuery("", this.query())) return;
    const isPast = (batch) => next === null || (found.length > 0 && !isBefore(found.at(-1), batch));
    this.onread([...newest.batches, ...found], (batch) => (!start.after || isBefore(start.after, batch)) && isPast(batch));
  }

  async page(query, cursor, limit) {
    const { body } = await get(withQuery("v1/batches", { ...query, limit, cursor }), { signal: this.ended.signal });
    return { batches: body.batches.map(placed), next: body.next_cursor };
  }
}
