// A long table of which only the rows in sight are in the document, so that thousands cost what some dozens cost.

import { h } from "./dom.js";

/** So many rows above and below what is in sight are there too, for the Tab key and for a quick hand. */
const MARGIN = 12;

/** How high a row is until one was measured, in pixels. */
const GUESS = 56;

export class Rows {
  /**
   * `make(item)` gives the row of an item, with an `update(item)` of its own; `key` names an item. `onrange` hears which
   * items are in sight.
   */
  constructor({ scroller, body, columns, key, make, onrange }) {
    Object.assign(this, { scroller, body, columns, key, make, onrange });
    this.items = [];
    this.rows = new Map();
    this.height = GUESS;
    this.frame = 0;
    scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    this.resizes = new ResizeObserver(() => this.soon());
    this.resizes.observe(scroller);
  }

  close() {
    this.resizes.disconnect();
    cancelAnimationFrame(this.frame);
  }

  /** Shows these items. Rows of items that were shown before stay as they are, the focus with them. */
  show(items) {
    this.items = items;
    this.places = new Map(items.map((item, place) => [this.key(item), place]));
    this.soon();
  }

  /** The item has changed. */
  update(item) {
    this.rows.get(this.key(item))?.update(item);
  }

  soon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.render());
  }

  range() {
    const { scrollTop, clientHeight } = this.scroller;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.height) + MARGIN);
    return [Math.min(first, last), last];
  }

  render() {
    const [first, last] = this.range();
    const wanted = Array.from({ length: last - first }, (_, offset) => first + offset);
    const focused = document.activeElement?.closest?.("tr")?.dataset.key;
    const place = this.places?.get(focused);
    // The row that has the focus keeps it, though it is out of sight.
    if (place !== undefined && place < first) wanted.unshift(place);
    if (place !== undefined && place >= last) wanted.push(place);
    this.lay(wanted);
    this.measure();
    this.onrange?.(this.items.slice(first, last), last);
  }

  /** Puts the rows of these places into the document, and gaps for those between. */
  lay(places) {
    const nodes = [];
    const kept = new Map();
    let next = 0;
    for (const place of places) {
      if (place > next) nodes.push(this.gap(place - next));
      const item = this.items[place];
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.make(item);
      row.update(item);
      row.element.setAttribute("aria-rowindex", place + 2);
      kept.set(key, row);
      nodes.push(row.element);
      next = place + 1;
    }
    if (next < this.items.length) nodes.push(this.gap(this.items.length - next));
    this.rows = kept;
    const stays = new Set(nodes);
    for (const node of [...this.body.children]) if (!stays.has(node)) node.remove();
    // A node that is moved loses the focus, so those that are in their place are left there.
    let at = this.body.firstChild;
    for (const node of nodes) {
      if (node === at) at = at.nextSibling;
      else this.body.insertBefore(node, at);
    }
  }

  gap(rows) {
    const cell = h("td", { colspan: this.columns });
    cell.style.height = `${rows * this.height}px`;
    return h("tr", { class: "gap", "aria-hidden": "true" }, cell);
  }

  measure() {
    const [row] = this.rows.values();
    const height = row?.element.getBoundingClientRect().height;
    if (!height || Math.abs(height - this.height) < 0.5) return;
    this.height = height;
    this.soon();
  }
}
