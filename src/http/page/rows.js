// A long table of which only the rows in sight are in the document, so that thousands cost what some dozens cost.

import { h } from "./dom.js";

/** So many rows above and below what is in sight are there too, for the Tab key and for a quick hand. */
const MARGIN = 12;

/** How high a row is until one was measured, in pixels. */
const GUESS = 76;

export class Rows {
  /**
   * `make(item)` gives the row of an item, with an `update(item)` of its own; `key` names an item. `onrange` hears which
   * items are in sight.
   */
  constructor({ scroller, body, columns, key, make, onrange }) {
    Object.assign(this, { scroller, body, columns, key, make, onrange });
    this.items = [];
    this.rows = new Map();
    // How high each was when it was in the document; the others are taken for as high as those are on the whole.
    this.heights = new Map();
    this.height = GUESS;
    this.frame = 0;
    scroller.addEventListener("scroll", () => this.soon(), { passive: true });
    this.resizes = new ResizeObserver(() => this.resized());
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

  /** Where the width is another, the heights are too. */
  resized() {
    const width = this.scroller.clientWidth;
    if (width !== this.width) this.heights.clear();
    this.width = width;
    this.soon();
  }

  soon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.render());
  }

  /** The rows in sight, and the margin. */
  range() {
    const { scrollTop, clientHeight } = this.scroller;
    let [place, top] = [0, 0];
    const until = (height) => {
      while (place < this.items.length && top < height) top += this.heightOf(this.items[place++]);
      return place;
    };
    const first = until(scrollTop) - 1 - MARGIN;
    const last = Math.min(this.items.length, until(scrollTop + clientHeight) + MARGIN);
    return [Math.max(0, Math.min(first, last)), last];
  }

  heightOf(item) {
    return this.heights.get(this.key(item)) ?? this.height;
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
      if (place > next) nodes.push(this.gap(next, place));
      const item = this.items[place];
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.make(item);
      row.update(item);
      row.element.setAttribute("aria-rowindex", place + 2);
      kept.set(key, row);
      nodes.push(row.element);
      next = place + 1;
    }
    if (next < this.items.length) nodes.push(this.gap(next, this.items.length));
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

  /** Room for the rows of these places. */
  gap(from, to) {
    const cell = h("td", { colspan: this.columns });
    const height = this.items.slice(from, to).reduce((sum, item) => sum + this.heightOf(item), 0);
    cell.style.height = `${height}px`;
    return h("tr", { class: "gap", "aria-hidden": "true" }, cell);
  }

  measure() {
    let hasMoved = false;
    let sum = 0;
    for (const [key, row] of this.rows) {
      const { height } = row.element.getBoundingClientRect();
      if (!height) return;
      hasMoved ||= Math.abs(height - (this.heights.get(key) ?? this.height)) >= 0.5;
      this.heights.set(key, height);
      sum += height;
    }
    if (this.rows.size === 0 || !hasMoved) return;
    this.height = sum / this.rows.size;
    this.soon();
  }
}
