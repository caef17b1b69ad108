// The essays of a batch and how each came out of each phase: a grid (WAI-ARIA), in which the arrow keys move.

import { open } from "./dialog.js";
import { chip, fill, h, plain, say } from "./dom.js";
import { errorText, stateOf } from "./timeline.js";
import { look, short, titled } from "./words.js";

/** So many essays are shown before somebody asks for more. */
const PAGE = 200;

const outcomeOf = (result) => (!result ? "" : result.pending ? "pending" : result.outcome);

/** An essay's name for people. */
export const nameOf = (essay) => essay.file_name ?? short(essay.essay_id);

/** One essay in one phase, in full. */
function openCell(essay, phase, attempts, retry) {
  const result = essay.phases[phase];
  const mine = attempts.filter((attempt) => attempt.phase === phase && attempt.essay_ids?.includes(essay.essay_id));
  const wayOf = (attempt) => {
    const hasFailed = attempt.failed_essay_ids?.includes(essay.essay_id);
    const state = attempt.outcome && attempt.outcome !== "cancelled" ? (hasFailed ? "failed" : "succeeded") : stateOf(attempt);
    return h("li", {}, `attempt ${attempt.attempt} `, chip(state), attempt.error_code && hasFailed ? h("span", { class: "second" }, attempt.error_code) : null);
  };
  const button = h("button", { type: "button", class: "primary" }, "Retry this essay…");
  const shown = open({
    title: `${nameOf(essay)} in ${titled(phase)}`,
    body: [
      h("p", { class: "small" }, "Essay ", h("code", {}, essay.essay_id)),
      h("p", {}, chip(outcomeOf(result) || "not_run"), result?.pending && result.outcome !== "not_run" ? ` (${look(result.outcome).label} before)` : null),
      result?.error_code && errorText(result),
      mine.length > 0 && h("h3", {}, "Attempts with this essay"),
      mine.length > 0 && h("ul", { class: "plain" }, mine.map(wayOf)),
    ],
    extra: [retry && button],
  });
  button.addEventListener("click", () => {
    shown.close();
    // Once the focus is back where it was.
    queueMicrotask(() => setTimeout(() => retry([essay.essay_id], phase)));
  });
}

export class Grid {
  /** `onchoose` hears how many essays are chosen; `retryOf(phase)` gives what retries essays there, where that is possible. */
  constructor({ onchoose, retryOf }) {
    Object.assign(this, { onchoose, retryOf });
    this.chosen = new Set();
    this.rows = new Map();
    this.limit = PAGE;
    this.at = [0, 0];
    this.head = h("tr", { role: "row", "aria-rowindex": 1 });
    this.body = h("tbody", { role: "rowgroup" });
    this.table = h(
      "table",
      { role: "grid", "aria-label": "Essays by phase", "aria-multiselectable": "true", class: "grid", onkeydown: (event) => this.press(event), onclick: (event) => this.click(event), onfocusin: (event) => this.enter(event) },
      h("thead", { role: "rowgroup" }, this.head),
      this.body,
    );
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.showMore() }, "Show more essays");
    this.element = h("div", {}, h("div", { class: "grid-scroller" }, this.table), this.more);
  }

  show(essays, phases, attempts) {
    Object.assign(this, { essays, attempts });
    if (String(phases) !== String(this.phases)) {
      this.phases = phases;
      this.rows.clear();
      this.body.replaceChildren();
      const headOf = (text) => h("th", { role: "columnheader", scope: "col" }, text);
      fill(this.head, headOf("Essay"), phases.map((phase) => headOf(titled(phase))));
    }
    this.table.setAttribute("aria-rowcount", essays.length + 1);
    essays.slice(0, this.limit).forEach((essay, place) => this.showRow(essay, place));
    this.more.hidden = essays.length <= this.limit;
    if (!this.table.querySelector('[tabindex="0"]')) this.cell(0, 0)?.setAttribute("tabindex", 0);
  }

  showMore() {
    const first = this.limit;
    this.limit += PAGE;
    this.show(this.essays, this.phases, this.attempts);
    this.go(first, 0);
  }

  showRow(essay, place) {
    let row = this.rows.get(essay.essay_id);
    if (!row) {
      row = this.newRow(essay, place);
      this.rows.set(essay.essay_id, row);
      this.body.append(row.element);
    }
    say(row.name, nameOf(essay));
    this.phases.forEach((phase, number) => {
      const result = essay.phases[phase];
      const state = `${outcomeOf(result)} ${result?.error_code ?? ""}`;
      const cell = row.cells[number];
      if (cell.dataset.state === state) return;
      const { label, sign, tone } = look(outcomeOf(result) || "not_run");
      Object.assign(cell.dataset, { state, tone });
      const code = result?.error_code && !result.pending ? result.error_code : "";
      cell.replaceChildren(h("span", { class: "sign", "aria-hidden": "true" }, sign), h("span", { class: "cell-text" }, code || label));
      cell.title = plain(result?.message ?? label);
    });
  }

  newRow(essay, place) {
    const box = h("input", { type: "checkbox", tabindex: -1, "aria-hidden": "true" });
    const name = h("span", { class: "cell-text" });
    const head = h("th", { role: "rowheader", scope: "row", tabindex: -1, "aria-colindex": 1 }, box, name);
    const cells = this.phases.map((_, number) => h("td", { role: "gridcell", tabindex: -1, "aria-colindex": number + 2 }));
    const element = h("tr", { role: "row", "aria-rowindex": place + 2, "aria-selected": "false", data: { essay: essay.essay_id } }, head, cells);
    return { element, box, name, cells };
  }

  cell(row, column) {
    return this.body.rows[row]?.cells[column];
  }

  placeOf(target) {
    const cell = target.closest?.("td, th");
    const row = cell?.closest("tbody tr");
    return row ? [row.sectionRowIndex, cell.cellIndex] : null;
  }

  /** Only one cell is on the way of the Tab key: the one that had the focus last. */
  enter({ target }) {
    const place = this.placeOf(target);
    if (!place) return;
    this.cell(...this.at)?.setAttribute("tabindex", -1);
    this.at = place;
    this.cell(...place).setAttribute("tabindex", 0);
  }

  go(row, column) {
    const rows = this.body.rows.length;
    const cell = this.cell(Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), this.phases.length));
    cell?.focus();
  }

  press(event) {
    const place = this.placeOf(event.target);
    if (!place || event.altKey || event.metaKey) return;
    const [row, column] = place;
    const last = this.body.rows.length - 1;
    const moves = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [event.ctrlKey ? 0 : row, 0],
      End: [event.ctrlKey ? last : row, this.phases.length],
      PageUp: [row - 10, column],
      PageDown: [row + 10, column],
    };
    if (moves[event.key]) this.go(...moves[event.key]);
    else if (event.key === " ") this.choose(row);
    else if (event.key === "Enter") this.openAt(row, column);
    else if (event.key === "a" && event.ctrlKey) this.chooseAll(true);
    else return;
    event.preventDefault();
  }

  click(event) {
    const place = this.placeOf(event.target);
    if (!place) return;
    const [row, column] = place;
    // The box shows what is chosen, and does not decide it.
    if (event.target.type === "checkbox") queueMicrotask(() => this.mark(row));
    if (column === 0) this.choose(row);
    else this.openAt(row, column);
  }

  openAt(row, column) {
    if (column === 0) return this.choose(row);
    const phase = this.phases[column - 1];
    openCell(this.essays[row], phase, this.attempts, this.retryOf(phase));
  }

  mark(row) {
    const { essay_id: id } = this.essays[row];
    const isChosen = this.chosen.has(id);
    const shown = this.rows.get(id);
    shown.element.setAttribute("aria-selected", isChosen);
    shown.box.checked = isChosen;
  }

  choose(row) {
    const { essay_id: id } = this.essays[row];
    if (!this.chosen.delete(id)) this.chosen.add(id);
    this.mark(row);
    this.onchoose(this.chosen.size);
  }

  chooseAll(isChosen) {
    this.chosen.clear();
    if (isChosen) for (const essay of this.essays) this.chosen.add(essay.essay_id);
    for (let row = 0; row < this.body.rows.length; row += 1) this.mark(row);
    this.onchoose(this.chosen.size);
  }
}
