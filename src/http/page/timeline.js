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

/** When an attempt began, as a number; nothing while it waits. */
const beganAt = (attempt) => {
  const began = attempt.dispatched_at ?? attempt.started_at;
  return began ? new Date(began).getTime() : null;
};

/** So many times stand below the lanes. */
const TICKS = 4;

/** The least share of a lane, in percent, in which how long it took can be read. */
const ROOM_FOR_TEXT = 9;

/** The colours of the bars, in words. */
function legend(attempts) {
  const looks = new Map(attempts.map((attempt) => look(stateOf(attempt))).map((one) => [`${one.tone} ${one.label}`, one]));
  const item = ({ label, tone }) => h("li", {}, h("span", { class: "bar-of", data: { tone } }), label);
  return h("ul", { class: "legend" }, [...looks.values()].map(item));
}

/** Times along the lanes, with the seconds where all is within a day. */
function axis(first, last) {
  const tick = (_, place) => {
    const at = new Date(first + ((last - first) * place) / (TICKS - 1));
    return h("span", {}, time(at.toISOString()));
  };
  return h("div", { class: "lane axis" }, h("span", {}), h("span", { class: "ticks" }, Array.from({ length: TICKS }, tick)));
}

/** A lane for each phase with a bar for each attempt that has begun. The list below says the same in words. */
function lanes(attempts) {
  const begun = attempts.filter((attempt) => beganAt(attempt) !== null);
  if (begun.length === 0) return null;
  const now = Date.now();
  const span = (attempt) => {
    const from = beganAt(attempt);
    return [from, attempt.ended_at ? new Date(attempt.ended_at).getTime() : Math.max(now, from)];
  };
  const first = Math.min(...begun.map((attempt) => span(attempt)[0]));
  const last = Math.max(...begun.map((attempt) => span(attempt)[1]), first + 1);
  const bar = (attempt) => {
    const [from, to] = span(attempt);
    const share = (100 * (to - from)) / (last - first);
    const took = between(from, to);
    const title = `${titled(attempt.phase)}, attempt ${attempt.attempt}: ${time(new Date(from).toISOString())}, ${attempt.ended_at ? "took" : "for"} ${took}`;
    const element = h("span", { class: "bar-of", data: { tone: look(stateOf(attempt)).tone }, title }, share >= ROOM_FOR_TEXT && h("span", { class: "took" }, took));
    element.style.left = `${(100 * (from - first)) / (last - first)}%`;
    element.style.width = `${share}%`;
    return element;
  };
  const lane = (phase) => {
    const mine = begun.filter((attempt) => attempt.phase === phase);
    return mine.length > 0 && h("div", { class: "lane" }, h("span", { class: "lane-name" }, titled(phase)), h("span", { class: "lane-bars" }, mine.map(bar)));
  };
  const label = `From ${time(new Date(first).toISOString())}, for ${between(first, last)}. The list below says the same in words.`;
  return h("div", { class: "lanes", role: "img", "aria-label": label }, PHASES.map(lane), axis(first, last), legend(begun));
}

/** The newest first, by when it began, which is the time that each says; what waits comes before. */
function byBegin(one, other) {
  const at = (attempt) => beganAt(attempt) ?? Infinity;
  if (at(one) !== at(other)) return at(one) > at(other) ? -1 : 1;
  return PHASES.indexOf(other.phase) - PHASES.indexOf(one.phase) || other.attempt - one.attempt;
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
  const began = attempt.dispatched_at ?? attempt.started_at;
  const at = began ?? attempt.enqueued_at;
  const failed = attempt.failed_essay_ids ?? [];
  return h(
    "li",
    {},
    h("h3", {}, `${titled(attempt.phase)}, attempt ${attempt.attempt} `, chip(stateOf(attempt))),
    h("p", { class: "small" }, began ? "began " : "asked for ", h("time", { datetime: at }, time(at)), " · ", factsOf(attempt).join(" · ")),
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
    const newest = [...attempts].sort(byBegin);
    if (attempts.length === 0) fill(element, h("p", {}, "Nothing was tried yet."));
    else fill(element, lanes(attempts), h("ol", { class: "attempts" }, newest.map((attempt) => itemOf(attempt, nameOf))));
    for (const details of element.querySelectorAll("details")) details.open = opened.has(details.dataset.key);
  };
  return { element, show };
}
