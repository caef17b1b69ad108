// Requests to the server that the page came from, and what went wrong with them.

import { credentials } from "./identity.js";

/** Where the server's routes begin. */
export const base = new URL("./", document.baseURI);

/** What happens on this page, told to all of its parts: `changed` (a batch), `unauthenticated`, `identity`. */
export const happenings = new EventTarget();

/** Tells all parts of the page. */
export const tell = (type, detail) => happenings.dispatchEvent(new CustomEvent(type, { detail }));

/** How long a client is asked to wait. */
const waitOf = (answer) => Number(answer.headers.get("Retry-After") ?? 0) * 1_000;

/** An error, as the server says it (RFC 9457), or as the browser does where there is no answer. */
export class Problem extends Error {
  constructor(message, { status = 0, code = "", correlationId = "", retryAfterMs = 0, path = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, correlationId, retryAfterMs, path });
  }

  /** One that was asked for, and is the answer. */
  static said(body, retryAfterMs) {
    const problem = new Problem(body.error, { status: body.status, code: body.error_code, correlationId: body.correlation_id, retryAfterMs });
    return Object.assign(problem, { isSaid: true });
  }

  static of(answer, body, path) {
    const retryAfterMs = waitOf(answer);
    return new Problem(body?.error ?? body?.detail ?? `the server answered ${answer.status}`, {
      status: answer.status,
      code: body?.error_code ?? "",
      correlationId: body?.correlation_id ?? answer.headers.get("X-Correlation-ID") ?? "",
      retryAfterMs,
      path,
    });
  }
}

/** The headers of a request: who asks, and what else. `Authorization` is left to the caller where `secret` is false. */
export function headersFor(path, extra = {}) {
  const { user, token } = credentials(path);
  const headers = { ...extra };
  // Headers are bytes to the browser, and UTF-8 to the server.
  if (user) headers["X-User-ID"] = String.fromCharCode(...new TextEncoder().encode(user));
  if (token) headers.Authorization = `Bearer ${token}`;
  return headers;
}

/** Asks, and gives the answer with its body read; throws a `Problem` for everything that is not 2xx. */
export async function ask(method, path, { body, headers, signal } = {}) {
  const sent = headersFor(path, headers);
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let answer;
  try {
    const text = body === undefined ? undefined : JSON.stringify(body);
    answer = await fetch(new URL(path, base), { method, headers: sent, body: text, signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server cannot be reached");
  }
  const read = await answer.json().catch(() => null);
  if (answer.ok) return { status: answer.status, etag: answer.headers.get("ETag"), retryAfterMs: waitOf(answer), body: read };
  const problem = Problem.of(answer, read, path);
  if (problem.status === 401) tell("unauthenticated", { path, problem });
  throw problem;
}

export const get = (path, options) => ask("GET", path, options);

/** A path with its query, without what is empty. */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

/** The path of a batch's route. */
export const ofBatch = (id, rest) => `v1/batches/${encodeURIComponent(id)}/${rest}`;

/** A batch in short, as the listing has it, out of its status. */
export function summaryOf({ body, etag }) {
  const state = body.pipeline_state;
  const phases = {};
  for (const phase of state.requested_pipelines) {
    const detail = state[phase];
    const hasBegun = detail.started_at !== null || detail.completed_at !== null;
    phases[phase] = {
      status: detail.status,
      attempts: detail.error_info?.retry_count !== undefined ? detail.error_info.retry_count + 1 : Number(hasBegun),
      error_code: detail.error_info?.error_code ?? null,
      essay_counts: detail.essay_counts,
    };
  }
  return {
    batch_id: body.batch_id,
    status: body.status,
    batch_status: body.details.batch_status,
    version: Number(etag?.replaceAll('"', "") ?? 0),
    course_code: body.batch_context.course_code,
    expected_essay_count: body.batch_context.expected_essay_count,
    essays_received: body.details.essays_received,
    registered_at: body.details.registered_at,
    updated_at: body.details.updated_at,
    phases,
    stuck_since: body.stuck_since,
    stale: body.stale,
  };
}
