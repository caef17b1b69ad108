// What was tried: a lane for each phase, and every attempt in words.

import { chip, fill, h } from "./dom.js";
import { between, count, look, PHASES, time, titled } from "./words.js";

const TRIGGERS = { pipeline: "by the pipeline", automatic: "by itself, after a transient failure", user: "by a user" };

/** What an attempt is now: how it ended, or how far it is. */
export const stateOf = (attempt) =>
  attempt.outcome ?? (attempt.started_at ? "in_progress" : attempt.dispatched_at ? "dispatch_initiated" : "requested_by_user");

/** An error in full. */
export function errorText({ error_code: code, category, message }) {
  return h("div", { class: "note bad" }, h("p", {}, h("code", {}, code), category && ` · ${category}`), message && h("p", { class: "wrap" }, message));
}

/** A lane for each phase with a bar for each attempt. The list below says the same in words. */
function lanes(attempts) {
  const now = Date.now();
  const span = (attempt) => {
    const from = new Date(attempt.dispatched_at ?? attempt.enqueued_at).getTime();
    return [from, attempt.ended_at ? new Date(attempt.ended_at).getTime() : Math.max(now, from)];
  };
  const first = Math.min(...attempts.map((attempt) => span(attempt)[0]));
  const last = Math.max(...attempts.map((attempt) => span(attempt)[1]), first + 1);
  const bar = (attempt) => {
    const [from, to] = span(attempt);
    const element = h("span", { class: "bar-of", data: { tone: look(stateOf(attempt)).tone }, title: `${titled(attempt.phase)}, attempt ${attempt.attempt}` });
    element.style.left = `${(100 * (from - first)) / (last - first)}%`;
    element.style.width = `${(100 * (to - from)) / (last - first)}%`;
    return element;
  };
  const lane = (phase) => {
    const mine = attempts.filter((attempt) => attempt.phase === phase);
    return mine.length > 0 && h("div", { class: "lane" }, h("span", { class: "lane-name" }, titled(phase)), h("span", { class: "lane-bars" }, mine.map(bar)));
  };
  return h("div", { class: "lanes", "aria-hidden": "true" }, PHASES.map(lane));
}

function factsOf(attempt) {
  const start = attempt.started_at ?? attempt.dispatched_at;
  return [
    TRIGGERS[attempt.trigger] + (attempt.trigger === "user" ? ` ${attempt.requested_by}` : ""),
    count(attempt.essay_count, "essay"),
    attempt.ended_at && attempt.outcome !== "cancelled" && `${attempt.successful} came out, ${attempt.failed} failed`,
    start && attempt.ended_at && `took ${between(start, attempt.ended_at)}`,
    new Date(attempt.dispatched_at) - new Date(attempt.enqueued_at) >= 100 && `waited ${between(attempt.enqueued_at, attempt.dispatched_at)}`,
    attempt.worker_id && `worker ${attempt.worker_id}`,
  ].filter(Boolean);
}

function itemOf(attempt, nameOf) {
  const failed = attempt.failed_essay_ids ?? [];
  return h(
    "li",
    {},
    h("h3", {}, `${titled(attempt.phase)}, attempt ${attempt.attempt} `, chip(stateOf(attempt))),
    h("p", { class: "small" }, h("time", { datetime: attempt.enqueued_at }, time(attempt.enqueued_at)), " · ", factsOf(attempt).join(" · ")),
    attempt.trigger === "user" && attempt.reason && h("p", { class: "wrap" }, `“${attempt.reason}”`),
    attempt.error_code && errorText(attempt),
    attempt.note && h("p", { class: "wrap" }, attempt.note),
    failed.length > 0 && h("details", { data: { key: `failed-${attempt.phase}-${attempt.attempt}` } }, h("summary", {}, count(failed.length, "failed essay")), h("ul", {}, failed.map((id) => h("li", {}, nameOf(id))))),
    h("p", { class: "small faint" }, "correlation id ", h("code", {}, attempt.correlation_id)),
  );
}

/** The place of the timeline, with `show(attempts, nameOf)`. */
export function timeline() {
  const element = h("div", {});
  let shown = "";
  const show = (attempts, nameOf) => {
    const state = JSON.stringify(attempts);
    if (state === shown) return;
    shown = state;
    const opened = new Set([...element.querySelectorAll("details[open]")].map((details) => details.dataset.key));
    const newest = [...attempts].sort((one, other) => new Date(other.enqueued_at) - new Date(one.enqueued_at) || PHASES.indexOf(other.phase) - PHASES.indexOf(one.phase));
    if (attempts.length === 0) fill(element, h("p", {}, "Nothing was tried yet."));
    else fill(element, lanes(attempts), h("ol", { class: "attempts" }, newest.map((attempt) => itemOf(attempt, nameOf))));
    for (const details of element.querySelectorAll("details")) details.open = opened.has(details.dataset.key);
  };
  return { element, show };
}
