// One batch: where each phase stands and what can be done about it, its essays, and what was tried.

import { get, happenings, ofBatch, withQuery } from "./api.js";
import { openCancel } from "./cancel.js";
import { problemNote } from "./dialog.js";
import { announce, chip, fill, h, say } from "./dom.js";
import { Grid, nameOf } from "./grid.js";
import { openRetry, preview } from "./retry.js";
import { errorText, timeline } from "./timeline.js";
import { count, isRunning, look, PHASES, plainly, short, time, titled } from "./words.js";

/** How often a batch that is at work is read again: what is dispatched and begun is not announced. */
const POLL_MS = 700;

/** How often one that rests is: a retry that begins elsewhere is not announced. */
const QUIET_MS = 7_000;

/** The most attempts of a phase that are shown; the newest. */
const MOST_ATTEMPTS = 200;

/** All pages of something. */
async function pages(path, name, query, signal) {
  const found = [];
  for (let from = query.from; from !== null; ) {
    const { body } = await get(withQuery(path, { ...query, from }), { signal });
    found.push(...body[name]);
    from = body.next_from;
  }
  return found;
}

/** Whether the phase can be retried now, as the server says it; the reason where not. */
async function possibility(batchId, phase, signal) {
  const plain = await preview(batchId, { phase_name: phase }, signal);
  if (plain.plan) return { can: true, why: "" };
  const forced = await preview(batchId, { phase_name: phase, force: true }, signal);
  return { can: Boolean(forced.plan), why: plain.problem.message, waitMs: plain.problem.retryAfterMs };
}

/** What went wrong the last time, while the next attempt is at it. */
function wentBefore(last) {
  if (!last?.error_code) return null;
  const failed = last.failed > 0 ? `: ${count(last.failed, "essay")} failed` : " failed";
  return h(
    "div",
    { class: "note" },
    h("p", { class: "small" }, `Attempt ${last.attempt}${failed} with `, h("code", {}, last.error_code), last.category && ` · ${last.category}`),
    last.message && h("p", { class: "wrap" }, last.message),
  );
}

function errorsOf(info, last, hasBegun) {
  if (!info) return [];
  if (hasBegun) return [wentBefore(last)];
  const failed = info.failed_essays ?? [];
  return [
    info.error_code ? errorText(info) : info.message && h("p", { class: "note" }, `${plainly(info.message)}.`),
    info.next_retry_at && h("p", { class: "note" }, "Is tried again by itself at ", h("time", { datetime: info.next_retry_at }, time(info.next_retry_at)), "."),
    failed.length > 0 && h("p", { class: "small" }, `${count(failed.length, "failed essay")}${failed.length === 100 ? " or more" : ""}; the grid below shows which.`),
  ];
}

function phaseCard({ phase, detail, isStale, possible, last, retry }) {
  const counts = detail.essay_counts;
  // A phase that was skipped has an error without an attempt.
  const retries = detail.error_info?.retry_count ?? 0;
  const attempts = retries > 0 || detail.started_at !== null ? retries + 1 : 0;
  const button = h("button", { type: "button", data: { key: `retry-${phase}` }, onclick: () => retry(phase) }, "Retry…");
  button.setAttribute("aria-label", `Retry ${titled(phase)}`);
  const shares = [
    counts.successful > 0 && `${counts.successful} came out`,
    counts.failed > 0 && `${counts.failed} failed`,
    counts.pending_dispatch_or_processing > 0 && `${counts.pending_dispatch_or_processing} on the way`,
  ].filter(Boolean);
  return h(
    "article",
    { class: "card", "aria-labelledby": `phase-${phase}` },
    h("div", { class: "card-head" }, h("h3", { id: `phase-${phase}`, tabindex: -1, data: { key: `phase-${phase}` } }, titled(phase)), chip(detail.status)),
    h("p", { class: "small" }, [shares.join(", ") || `${count(counts.total, "essay")}`, attempts > 0 && count(attempts, "attempt")].filter(Boolean).join(" · ")),
    isRunning(detail.status) && counts.total > 0 && h("progress", { max: 100, value: detail.progress_percentage ?? 0, "aria-label": `${titled(phase)}: essays done` }),
    isStale && h("p", { class: "note part" }, "Stale: it has not seen what a phase above made later."),
    errorsOf(detail.error_info, last, isRunning(detail.status) && !detail.error_info?.next_retry_at),
    possible?.can ? h("div", { class: "actions start" }, button) : possible?.why && h("p", { class: "small faint" }, `No retry now: ${plainly(possible.why)}`),
  );
}

/** The view of one batch. */
export function batchView(id) {
  const ended = new AbortController();
  const { signal } = ended;
  let [state, possible, timer, isReading, isAgain, shownVersion] = [null, {}, 0, false, false, null];
  let [essays, lasts, cancelling] = [[], {}, null];

  const status = h("span", {});
  const facts = h("p", {});
  const notes = h("div", {});
  const trouble = h("div", {});
  // There is none of it until the batch is there.
  const content = h("div", { hidden: true });
  const cards = h("div", { class: "cards" });
  const chosenText = h("span", { role: "status" }, "No essay is chosen");
  const cancel = h("button", { type: "button", class: "danger", hidden: true, data: { key: "cancel" }, onclick: () => (cancelling = openCancel({ batchId: id, running })) }, "Cancel…");
  const clear = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => grid.chooseAll(false) }, "Choose none");
  const grid = new Grid({
    onchoose: (number) => {
      say(chosenText, number === 0 ? "No essay is chosen" : `${count(number, "essay")} chosen: “Retry…” of a phase offers them`);
      clear.hidden = number === 0;
    },
    retryOf: (phase) => possible[phase]?.can && ((chosen) => openRetry({ batchId: id, phase, chosen, essays, back: `phase-${phase}` })),
  });
  const tried = timeline();
  const retry = (phase) => openRetry({ batchId: id, phase, chosen: [...grid.chosen], essays, back: `phase-${phase}` });
  const details = () => state.body.pipeline_state;
  const asked = () => PHASES.filter((phase) => details()[phase]);
  const running = () => asked().filter((phase) => isRunning(details()[phase].status));

  function showCards() {
    const card = (phase) => phaseCard({ phase, detail: details()[phase], isStale: state.body.stale.includes(phase), possible: possible[phase], last: lasts[phase], retry });
    fill(cards, asked().map(card));
    if (asked().length === 0) fill(cards, h("p", {}, "No pipeline was requested yet, so there is nothing to retry."));
  }

  function showState() {
    const { body } = state;
    const { batch_context: context, details: facts_ } = body;
    const was = status.textContent;
    fill(status, chip(body.status));
    if (was && was !== status.textContent) announce(`Batch ${short(id)}: ${look(body.status).label}`);
    const texts = [context.course_code, `${facts_.essays_received} of ${count(context.expected_essay_count, "essay")}`, `owner ${context.user_id}`, `registered ${time(facts_.registered_at)}`, `changed ${time(facts_.updated_at)}`];
    say(facts, texts.join(" · "));
    fill(
      notes,
      body.stuck_since && h("p", { class: "note part" }, "Stuck: a phase has been over half its deadline since ", h("time", { datetime: body.stuck_since }, time(body.stuck_since)), "."),
      body.stale.length > 0 && h("p", { class: "note part" }, `Stale: ${body.stale.map(titled).join(", ")} completed before a phase above made something new. A retry of it sees that.`),
    );
    cancel.hidden = running().length === 0;
    cancelling?.update();
    content.hidden = false;
    showCards();
  }

  /** The essays, the attempts and what is possible, where they may be others now. */
  async function readRest() {
    const ofPhase = async (phase) => {
      const from = Math.max(0, (details()[phase].error_info?.retry_count ?? 0) + 2 - MOST_ATTEMPTS);
      const attempts = await pages(ofBatch(id, `phases/${phase}/attempts`), "attempts", { from }, signal);
      return attempts.map((attempt) => ({ ...attempt, phase }));
    };
    const [found, possibilities, ...attempts] = await Promise.all([
      pages(ofBatch(id, "essays"), "essays", { from: 0 }, signal),
      Promise.all(asked().map(async (phase) => [phase, await possibility(id, phase, signal)])),
      ...asked().map(ofPhase),
    ]);
    essays = found;
    possible = Object.fromEntries(possibilities);
    lasts = Object.fromEntries(attempts.flat().filter((attempt) => attempt.ended_at).map((attempt) => [attempt.phase, attempt]));
    const names = new Map(essays.map((essay) => [essay.essay_id, nameOf(essay)]));
    showCards();
    grid.show(essays, asked(), attempts.flat());
    tried.show(attempts.flat(), (essay) => names.get(essay) ?? essay);
    // What has to wait for a moment is asked about again then.
    return Math.max(0, ...Object.values(possible).map(({ waitMs }) => waitMs ?? 0));
  }

  /** Reads the batch again, and all of it where it has moved. One reading at a time. */
  async function read() {
    if (isReading) return (isAgain = true);
    clearTimeout(timer);
    isReading = true;
    isAgain = false;
    let wait = 0;
    try {
      // What nobody sees is read once somebody does.
      if (document.hidden && state) return;
      const before = JSON.stringify(state?.body);
      state = await get(ofBatch(id, "status"), { signal });
      // What is the same is left alone: somebody may be copying it.
      if (JSON.stringify(state.body) !== before) showState();
      if (state.etag !== shownVersion) {
        wait = await readRest();
        shownVersion = wait > 0 ? null : state.etag;
      }
      fill(trouble);
      wait = running().length > 0 ? POLL_MS : wait || QUIET_MS;
    } catch (problem) {
      if (problem.name === "AbortError") return;
      fill(trouble, problemNote(problem));
      // Of a batch that is not there, or is somebody else's, there is nothing more to show.
      if (problem.status === 404 || problem.status === 403) content.hidden = true;
      if (problem.status === 0 || problem.status >= 429) wait = POLL_MS * 5;
    } finally {
      isReading = false;
    }
    if (isAgain) read();
    else if (wait > 0 && !signal.aborted) timer = setTimeout(read, wait);
  }

  const moved = ({ detail }) => detail.batchId === id && read();
  happenings.addEventListener("moved", moved, { signal });
  happenings.addEventListener("changed", moved, { signal });
  happenings.addEventListener("resync", read, { signal });
  document.addEventListener("visibilitychange", () => document.hidden || read(), { signal });
  read();

  content.append(
    facts,
    h("p", { class: "small" }, h("code", {}, id)),
    notes,
    h("h2", {}, "Phases"),
    cards,
    h("h2", {}, "Essays"),
    h("div", { class: "choice" }, h("p", { class: "hint" }, "Arrow keys move, Space chooses an essay, Enter shows a cell in full."), chosenText, clear),
    grid.element,
    h("h2", {}, "Attempts"),
    tried.element,
  );
  const element = h(
    "section",
    { class: "batch" },
    h("p", { class: "crumbs" }, h("a", { href: "#/batches" }, "Batches")),
    h("div", { class: "heading" }, h("h1", { tabindex: -1, title: id, data: { key: "batch-title" } }, `Batch ${short(id)}`), status, cancel),
    trouble,
    content,
  );
  const close = () => {
    ended.abort();
    clearTimeout(timer);
  };
  return { title: `Batch ${short(id)}`, element, close };
}
