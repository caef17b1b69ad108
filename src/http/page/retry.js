// The retry of one phase. What is possible, and what would happen, the server is asked for (dry_run): no rule of it is here.

import { ask, happenings, ofBatch, Problem, tell } from "./api.js";
import { curlButton } from "./curl.js";
import { open, problemNote } from "./dialog.js";
import { announce, field, fill, h, say, tick } from "./dom.js";
import { nameOf } from "./grid.js";
import { count, plainly, short, titled } from "./words.js";

/** So many essays are named in one sentence at the most. */
const MOST_NAMED = 3;

/** The most characters of a reason, as the server counts them. */
export const MAX_REASON = 500;

/** What would happen: `{ plan, etag }`, or `{ problem }`. */
export async function preview(batchId, body, signal) {
  try {
    // What is refused is asked about all the time, and is no error that a browser has to report.
    const asked = { ...body, dry_run: true, tell_refusal: true };
    const { body: plan, etag, retryAfterMs } = await ask("POST", ofBatch(batchId, "retry-phase"), { body: asked, signal });
    return plan.status === "dry_run" ? { plan, etag } : { problem: Problem.said(plan, retryAfterMs) };
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    return { problem };
  }
}

/** A field for a reason, which counts its characters. */
export function reasonField(label, onchange) {
  const area = h("textarea", { rows: 3, name: "reason" });
  const counter = h("p", { class: "hint counter" });
  const length = () => [...area.value.trim()].length;
  const isTooLong = () => length() > MAX_REASON;
  const update = () => {
    say(counter, isTooLong() ? `${length()} of ${MAX_REASON} characters: ${length() - MAX_REASON} too many` : `${length()} of ${MAX_REASON} characters`);
    counter.dataset.tone = isTooLong() ? "bad" : "";
    if (isTooLong()) area.setAttribute("aria-invalid", "true");
    else area.removeAttribute("aria-invalid");
    onchange?.();
  };
  area.addEventListener("input", update);
  update();
  return { element: field(label, area, counter), read: () => area.value.trim(), isTooLong, area };
}

/** What a plan says, in lines. */
function planLines(plan) {
  const names = (phases) => phases.map(titled).join(", ");
  const essays = plan.essay_ids?.length ?? 0;
  return [
    ["Attempt", `${plan.attempt}, at ${count(essays, "essay")}`],
    plan.goes_on.length > 0 && ["Then goes on", names(plan.goes_on)],
    plan.runs_again.length > 0 && ["Runs again", names(plan.runs_again)],
    plan.stale.length > 0 && ["Turns stale", names(plan.stale)],
  ].filter(Boolean);
}

function planView(plan) {
  return h(
    "div",
    { class: "note" },
    h("p", {}, `${plainly(plan.message)}.`),
    h("dl", {}, planLines(plan).map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text)))),
  );
}

/** The refusal of a retry that was about the batch as it was before. */
const movedSince = (problem) =>
  new Problem("The batch has changed since this was asked, and nothing was retried. What a retry would do now stands above.", problem);

/** The ways to choose essays. */
function scopesOf(chosen) {
  return [
    { name: "whole", label: "The whole phase", body: {} },
    { name: "failed", label: "Failed essays only", body: { only_failed: true } },
    chosen.length > 0 && { name: "chosen", label: `The chosen essays (${chosen.length})`, body: { essay_ids: chosen } },
  ].filter(Boolean);
}

/**
 * Opens the dialog that retries `phase`. `chosen` are the ids of essays; `essays` what is known of all of them, by which those
 * that a refusal is about are named.
 */
export function openRetry({ batchId, phase, chosen = [], essays = [], back }) {
  const ended = new AbortController();
  const options = scopesOf(chosen);
  let [scope, asked, generation, key] = [chosen.length > 0 ? "chosen" : "whole", null, 0, newKey()];
  let shown = null;

  const place = h("div", { class: "plan", "aria-live": "polite" }, h("p", { class: "note" }, "Asking what would happen…"));
  const trouble = h("div", {});
  const force = tick("Run again what came out well (force)", { name: "force", onchange: () => look() });
  const downstream = tick("Then run the completed phases below again (downstream)", { name: "downstream", onchange: () => look() });
  force.element.hidden = downstream.element.hidden = true;
  const reason = reasonField("Reason", () => update());
  const radios = options.map((option) => {
    const radio = h("input", { type: "radio", name: "scope", value: option.name, checked: option.name === scope });
    radio.addEventListener("change", () => {
      scope = option.name;
      force.box.checked = downstream.box.checked = false;
      look();
    });
    const why = h("span", { class: "why" });
    return { option, radio, why, element: h("label", { class: "tick" }, radio, h("span", {}, option.label, why)) };
  });
  const scopeNote = h("p", { class: "hint", hidden: true });

  const chosenScope = () => options.find((option) => option.name === scope);
  const flags = () => ({
    ...(force.box.checked && !force.element.hidden ? { force: true } : {}),
    ...(downstream.box.checked && !downstream.element.hidden ? { downstream: true } : {}),
  });
  const wish = () => ({ phase_name: phase, ...chosenScope().body, ...flags() });
  const request = () => ({
    method: "POST",
    path: ofBatch(batchId, "retry-phase"),
    body: { ...wish(), ...(reason.read() ? { retry_reason: reason.read() } : {}) },
    headers: { ...(asked?.etag ? { "If-Match": asked.etag } : {}), "Idempotency-Key": key },
  });

  /** Why the retry needs force: what of it has come out before. */
  function forceText() {
    const more = "Tick “Run again what came out well” to retry it all the same.";
    const good = scope === "chosen" ? essays.filter((essay) => chosen.includes(essay.essay_id) && essay.phases[phase]?.outcome === "succeeded") : [];
    if (good.length === 0) return `${titled(phase)} has completed. ${more}`;
    const names = good.slice(0, MOST_NAMED).map(nameOf).join(", ");
    const others = good.length > MOST_NAMED ? ` and ${count(good.length - MOST_NAMED, "more", "more")}` : "";
    const rest = good.length < chosen.length ? " (or choose only those that failed)" : "";
    return `${names}${others} came out well before. ${more.replace(/\.$/, `${rest}.`)}`;
  }

  /** A refusal of something that was only asked about: no error, since nothing was sent. */
  const refusalView = (text) => h("p", { class: "note part refusal" }, plainly(named(text)));

  /** A refusal of what was sent. */
  const inWords = (problem) => (problem.status === 412 ? movedSince(problem) : problem.status === 409 ? new Problem(plainly(named(problem.message)), problem) : problem);

  /** An essay by its name, where the server tells only its place. */
  const named = (text) => text.replace(/the essay in slot (\d+)/, (all, slot) => (essays[slot] ? nameOf(essays[slot]) : all));

  function update() {
    // The field of the reason is made before the dialog is.
    if (!shown) return;
    shown.button.disabled = !asked?.plan || reason.isTooLong();
  }

  /** Asks what would happen now, and what would with the flags that are not set. */
  async function look() {
    const mine = (generation += 1);
    const plain = { phase_name: phase, ...chosenScope().body };
    const ask = (body) => preview(batchId, body, ended.signal);
    try {
      const [now, forced, below] = await Promise.all([
        ask(wish()),
        ask({ ...plain, force: true }),
        ask({ ...plain, force: true, downstream: true }),
      ]);
      const unforced = flags().force ? await ask({ ...plain, ...flags(), force: false }) : now;
      if (mine !== generation) return;
      const needsForce = Boolean(unforced.problem && forced.plan);
      force.element.hidden = !needsForce;
      downstream.element.hidden = !(below.plan?.runs_again.length > 0);
      // With another wish it is another request.
      key = newKey();
      asked = now;
      if (now.plan) fill(place, planView(now.plan));
      else if (now.problem.isSaid) fill(place, refusalView(needsForce ? forceText() : now.problem.message));
      else fill(place, problemNote(now.problem));
      // What an earlier answer said of signing in is settled by this one.
      if (trouble.querySelector(".sign-in")) fill(trouble);
      update();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  /** Which ways to choose essays this phase has at all, and which it has now. */
  async function lookAtScopes() {
    const ask = ({ body }) => preview(batchId, { phase_name: phase, ...body, force: true }, ended.signal);
    const answers = await Promise.all(options.map(ask)).catch(() => null);
    if (!answers) return;
    answers.forEach(({ problem }, number) => {
      const { radio, why, element, option } = radios[number];
      // What the request cannot say of this phase is no choice; what it cannot have now is one that is closed.
      element.hidden = problem?.status === 400;
      radio.disabled = Boolean(problem) && option.name !== scope;
      say(why, problem && problem.status !== 400 && radio.disabled ? plainly(named(problem.message)) : "");
      if (problem?.status === 400) {
        say(scopeNote, `${plainly(named(problem.message))}.`);
        scopeNote.hidden = false;
        if (option.name === scope) choose("whole");
      }
    });
  }

  function choose(name) {
    scope = name;
    for (const { radio, option } of radios) radio.checked = option.name === name;
    look();
  }

  async function send(close) {
    shown.button.disabled = true;
    const { path, body, headers } = request();
    try {
      const { body: plan } = await ask("POST", path, { body, headers });
      close();
      announce(`${titled(phase)} of batch ${short(batchId)}: attempt ${plan.attempt} is on its way`, "good");
      tell("changed", { batchId });
    } catch (problem) {
      fill(trouble, problemNote(inWords(problem)));
      // The same key goes on, unless the server has answered. Who has to sign in first asks the same thing then.
      if (problem.status && problem.status !== 401) await look();
      else update();
      // What the button would do now stands above it.
      trouble.scrollIntoView({ block: "nearest" });
    }
  }

  happenings.addEventListener("identity", () => look(), { signal: ended.signal });
  shown = open({
    title: `Retry ${titled(phase)}`,
    size: "wide",
    back: back ?? `phase-${phase}`,
    body: [
      h("p", { class: "small" }, "Batch ", h("code", {}, batchId)),
      h("fieldset", {}, h("legend", {}, "What"), radios.map(({ element }) => element), scopeNote),
      force.element,
      downstream.element,
      place,
      reason.element,
      trouble,
    ],
    submit: { label: "Retry", run: send },
    extra: [curlButton(request, `retry ${titled(phase)}`)],
    first: radios.find(({ option }) => option.name === scope).radio,
    onclose: () => ended.abort(),
  });
  update();
  look();
  lookAtScopes();
}

/** A key that no other request has. `crypto.randomUUID` is only there with TLS and on this machine. */
export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
