// Bulk retries: all of them, and how far one is.

import { ask, get, withQuery } from "./api.js";
import { filterText } from "./bulk.js";
import { curlButton } from "./curl.js";
import { problemNote } from "./dialog.js";
import { announce, chip, fill, h, say } from "./dom.js";
import { count, plainly, short, time, titled } from "./words.js";

const POLL_MS = 700;
const PAGE = 100;

/** A table with a caption for those who do not see it. */
export function tableOf(caption, heads, body) {
  return h(
    "table",
    {},
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))),
    body,
  );
}

const number = (value) => value.toLocaleString("en");

/** All bulk retries of the user. */
export function jobsView() {
  const body = h("tbody", {});
  const trouble = h("div", {});
  const more = h("button", { type: "button", hidden: true, onclick: () => load(more.dataset.cursor) }, "Older ones");
  const rowOf = (job) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, h("a", { href: `#/retry-jobs/${job.job_id}`, title: job.job_id }, time(job.created_at))),
      h("td", {}, chip(job.status)),
      h("td", {}, `${titled(job.phase)}${job.only_failed ? ", failed essays" : ""}`),
      h("td", { class: "number" }, job.total.toLocaleString("en")),
      h("td", {}, filterText(job.filter)),
      h("td", { class: "wide-text" }, job.reason),
    );
  async function load(cursor) {
    try {
      const { body: page } = await get(withQuery("v1/retry-jobs", { limit: PAGE, cursor }));
      body.append(...page.jobs.map(rowOf));
      if (body.childElementCount === 0) body.append(h("tr", {}, h("td", { colspan: 6 }, "There is none yet. It begins in the list of batches.")));
      more.hidden = page.next_cursor === null;
      more.dataset.cursor = page.next_cursor ?? "";
    } catch (problem) {
      fill(trouble, problemNote(problem));
    }
  }
  load();
  const table = tableOf("Bulk retries, the newest first", ["Begun", "Status", "Phase", "Batches", "Filter", "Reason"], body);
  const element = h("section", {}, h("div", { class: "heading" }, h("h1", { tabindex: -1 }, "Bulk retries")), trouble, h("div", { class: "sheet" }, table), more);
  return { title: "Bulk retries", element };
}

/** Nobody waits for a job that is over. */
const outcomeOf = (member, isRunning) => (member.outcome === "waiting" && !isRunning ? "left_alone" : member.outcome);

function memberRow(member, isRunning) {
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, h("a", { href: `#/batches/${member.batch_id}`, title: member.batch_id }, short(member.batch_id))),
    h("td", {}, chip(outcomeOf(member, isRunning))),
    h("td", {}, member.attempt ? `attempt ${member.attempt}` : plainly(member.error ?? "")),
    h("td", {}, member.phase_status ? chip(member.phase_status) : ""),
    h("td", {}, time(member.at)),
  );
}

/** How far one is. */
export function jobView(id) {
  const path = `v1/retry-jobs/${encodeURIComponent(id)}`;
  let [from, timer, isClosed] = [0, 0, false];
  const facts = h("p", {});
  const status = h("span", {});
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Batches decided about" });
  const counts = h("p", { role: "status", class: "counts" });
  const trouble = h("div", {});
  const body = h("tbody", {});
  const stop = h("button", { type: "button", class: "danger", hidden: true, data: { key: "stop" }, onclick: end }, "Stop");
  const curl = curlButton(() => ({ method: "DELETE", path }), "stop");
  curl.hidden = true;
  const pages = h("div", { class: "actions start" });
  const turn = (label, to) => h("button", { type: "button", disabled: to === null, data: { key: label }, onclick: () => ((from = to), load()) }, label);

  function show(job) {
    const decided = job.total - job.counts.waiting;
    progress.max = Math.max(job.total, 1);
    progress.value = decided;
    fill(status, chip(job.status));
    say(facts, `${titled(job.phase)}${job.only_failed ? ", failed essays only" : ""} · ${filterText(job.filter)} · ${job.per_second} a second · begun ${time(job.created_at)} · “${job.reason}”`);
    const { retried, moved, refused, waiting } = job.counts;
    const isRunning = job.status === "running";
    const shares = [`${number(retried)} retried`, `${number(refused)} refused`, `${number(moved)} moved meanwhile`, `${number(waiting)} ${isRunning ? "waiting" : "left alone"}`];
    say(counts, `${number(decided)} of ${count(job.total, "batch", "batches")}: ${shares.join(", ")}`);
    if (!isRunning && document.activeElement === stop) document.querySelector("h1").focus();
    stop.hidden = curl.hidden = !isRunning;
    fill(body, job.batches.map((member) => memberRow(member, isRunning)));
    fill(pages, job.total > PAGE && [turn("Before", from > 0 ? Math.max(0, from - PAGE) : null), turn("Next", job.next_from)]);
    return isRunning || job.batches.some(({ phase_status: now }) => now === "in_progress" || now === "dispatch_initiated" || now === "requested_by_user");
  }

  async function load() {
    clearTimeout(timer);
    try {
      const { body: job } = await get(withQuery(path, { from, limit: PAGE }));
      if (isClosed) return;
      fill(trouble);
      if (show(job)) timer = setTimeout(load, POLL_MS);
    } catch (problem) {
      if (isClosed) return;
      fill(trouble, problemNote(problem));
      if (problem.status !== 404 && problem.status !== 401) timer = setTimeout(load, POLL_MS * 5);
    }
  }

  async function end() {
    try {
      await ask("DELETE", path);
      announce("Stopped. What was retried before goes on", "good");
      await load();
    } catch (problem) {
      fill(trouble, problemNote(problem));
    }
  }

  load();
  const table = tableOf("Batches of this bulk retry", ["Batch", "Outcome", "What came of it", "Phase now", "At"], body);
  const element = h(
    "section",
    {},
    h("p", { class: "crumbs" }, h("a", { href: "#/retry-jobs" }, "Bulk retries")),
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, `Bulk retry ${short(id)}`), status, stop, curl),
    facts,
    progress,
    counts,
    trouble,
    h("div", { class: "sheet" }, table),
    pages,
  );
  const close = () => {
    isClosed = true;
    clearTimeout(timer);
  };
  return { title: "Bulk retry", element, close };
}
