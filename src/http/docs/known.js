// What is known of this server while the operations are tried: ids that its answers had, for the operations they lead to.

import { get, withQuery } from "../page/api.js";
import { whoAmI } from "../page/identity.js";
import { resolve } from "./schema.js";

const KEY = "rephase.docs.known";

/** Operations that change nothing, though they are no GET. */
const ONLY_ASKS = new Set(["preflight"]);

function known() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** The links of an answer: which parameter of other operations is where in its body. */
function linksOf(api, operation, status) {
  const answer = resolve(api, operation.responses[status]);
  return Object.values(answer.links ?? {}).flatMap((link) => Object.entries(link.parameters ?? {}));
}

/** The member that `$response.body#/a/0/b` names. */
const memberOf = (body, expression) =>
  expression.split("#/")[1]?.split("/").reduce((place, name) => place?.[name], body);

/** Keeps the ids of an answer for as long as the tab is open. */
export function remember(api, operation, status, body) {
  const ids = known();
  for (const [name, expression] of linksOf(api, operation, status)) {
    const id = memberOf(body, expression);
    if (typeof id === "string") ids[name] = id;
  }
  try {
    sessionStorage.setItem(KEY, JSON.stringify(ids));
  } catch {
    // Then they are not kept.
  }
}

/** The listing whose answer leads to a parameter. */
function listingOf(api, name) {
  const found = Object.entries(api.paths).find(([path, { get: one }]) => one && !path.includes("{") && linksOf(api, one, "200").some(([parameter]) => parameter === name));
  return found && { path: found[0], operation: found[1].get };
}

/** Whether a parameter is the id of something that has to be there, and is found in a listing. */
export const isCarried = (api, name) => Boolean(listingOf(api, name));

/** The id for a parameter: the one that was seen last, else that of the newest there is. Nothing where there is none. */
export async function idFor(api, name) {
  if (known()[name]) return known()[name];
  const listing = listingOf(api, name);
  if (!listing || !whoAmI()) return "";
  try {
    const { body } = await get(withQuery(listing.path.slice(1), { limit: 1 }));
    remember(api, listing.operation, "200", body);
  } catch {
    // Whoever may not list them writes the id.
  }
  return known()[name] ?? "";
}

/** The example of a body, as whoever asks can send it: in their own name, and as a rehearsal where there is one. */
export function exampleOf(api, body) {
  const schema = resolve(api, body.schema);
  if (body.example === null || typeof body.example !== "object") return body.example;
  const example = { ...body.example };
  if (!schema.required?.includes("user_id")) delete example.user_id;
  if (schema.properties?.dry_run) example.dry_run = true;
  return example;
}

/** What whoever presses the button should know first. */
export function warningOf(api, operation, body) {
  if (operation.method === "get" || ONLY_ASKS.has(operation.operationId)) return null;
  const isRehearsal = body && resolve(api, body.schema).properties?.dry_run;
  return isRehearsal ? "With dry_run it only says what would happen; without it, it is done." : "What is sent is done: there is no rehearsal.";
}
