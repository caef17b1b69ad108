// How the API's words read to people, and how times are written.

/** The phases in the order in which they run. */
export const PHASES = ["spellcheck", "cj_assessment", "nlp", "ai_feedback"];

/** What a batch can be, as the listing's filter takes it. */
export const BATCH_STATUSES = [
  "pending_content",
  "ready",
  "processing",
  "completed_successfully",
  "completed_with_failures",
  "failed",
  "cancelled",
];

/** What a phase can be. */
export const PHASE_STATUSES = [
  "pending_dependencies",
  "requested_by_user",
  "dispatch_initiated",
  "in_progress",
  "completed_successfully",
  "completed_with_partial_success",
  "failed",
  "skipped_due_to_dependency_failure",
  "cancelled",
];

// Each with a sign, so that the colour is not all that tells it.
const LOOKS = {
  pending_content: ["waiting for essays", "…", "rest"],
  ready: ["ready", "○", "rest"],
  processing: ["processing", "▸", "run"],
  completed_successfully: ["completed", "✓", "good"],
  completed_with_failures: ["with failures", "!", "part"],
  completed_with_partial_success: ["partial", "!", "part"],
  failed: ["failed", "✕", "bad"],
  cancelled: ["cancelled", "–", "rest"],
  pending_dependencies: ["waits its turn", "…", "rest"],
  requested_by_user: ["asked for", "…", "run"],
  dispatch_initiated: ["dispatched", "▸", "run"],
  in_progress: ["running", "▸", "run"],
  skipped_due_to_dependency_failure: ["skipped", "»", "rest"],
  skipped_by_user_config: ["skipped", "»", "rest"],
  succeeded: ["came out", "✓", "good"],
  pending: ["on its way", "▸", "run"],
  not_run: ["not run", "·", "rest"],
  open: ["open", "!", "bad"],
  redriven: ["redriven", "▸", "good"],
  discarded: ["discarded", "–", "rest"],
  running: ["running", "▸", "run"],
  stopped: ["stopped", "–", "rest"],
  finished: ["finished", "✓", "good"],
  retried: ["retried", "✓", "good"],
  moved: ["moved", "»", "rest"],
  refused: ["refused", "✕", "bad"],
  waiting: ["waiting", "…", "rest"],
};

/** Label, sign and tone of a status. One that this page does not know reads as it is. */
export function look(status) {
  const [label, sign, tone] = LOOKS[status] ?? [String(status ?? "–").replaceAll("_", " "), "·", "rest"];
  return { label, sign, tone };
}

/** Options of a list with all of `statuses`, and one for any. */
export const optionsOf = (statuses) => [["", "any"], ...statuses.map((status) => [status, status.replaceAll("_", " ")])];

/** Whether work is under way in a phase with this status. */
export const isRunning = (status) =>
  ["requested_by_user", "pending_dependencies", "dispatch_initiated", "in_progress"].includes(status);

const today = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const other = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});

/** A time, short where it is of today. */
export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  return (at.toDateString() === new Date().toDateString() ? today : other).format(at);
}

/** How long it was between two times. */
export function between(from, to) {
  const ms = new Date(to) - new Date(from);
  if (!Number.isFinite(ms) || ms < 0) return "";
  if (ms < 1_000) return `${ms} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1_000)} s`;
  return `${(ms / 3_600_000).toFixed(1)} h`;
}

/** An id in short: where it begins, which is when it was made, and where it ends, which tells it from others. */
export const short = (id) => (id.length > 20 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id);

/** A number with its noun. */
export const count = (number, noun, nouns = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Whether this is the whole id of a batch. */
export const isId = (text) => UUID.test(text);

/** A phase as people see it. */
export const titled = (phase) => phase.replaceAll("_", " ");

/** What the server's texts say to programs, and what that is to people. */
const FOR_PROGRAMS = [
  [/; only a retry with "force": true runs it again$/, ""],
  [/; leave essay_ids and only_failed out$/, ""],
  [/\b(wait|waits) (\d{4,}) ms\b/, (_, word, ms) => `${word} ${Math.ceil(ms / 1_000)} s`],
];

/** A text of the server in the words of this page: phases and statuses as they are called here. */
export function plainly(text) {
  const said = FOR_PROGRAMS.reduce((rest, [pattern, better]) => rest.replace(pattern, better), text);
  const word = (name) => (PHASES.includes(name) ? titled(name) : PHASE_STATUSES.includes(name) ? look(name).label : name);
  return said.replace(/\b[a-z]+(?:_[a-z]+)+\b/g, word);
}
