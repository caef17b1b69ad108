// "Copy as curl": the request that the page would send, for a shell. A token is never in it.

import { base } from "./api.js";
import { announce, h } from "./dom.js";
import { open } from "./dialog.js";
import { credentials } from "./identity.js";

/** A word of a POSIX shell that stands for exactly this text. */
export const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** The command of a request. */
export function curlOf({ method, path, body, headers = {} }) {
  const { user, token } = credentials(path);
  const lines = [`curl --silent --show-error --fail-with-body --request ${method} ${quote(new URL(path, base).href)}`];
  const header = (name, value) => lines.push(`--header ${quote(`${name}: ${value}`)}`);
  if (user) header("X-User-ID", user);
  // Not in quotes that hide it: the shell puts in the token that its user has.
  if (token) lines.push('--header "Authorization: Bearer $TOKEN"');
  for (const [name, value] of Object.entries(headers)) header(name, value);
  if (body !== undefined) {
    header("Content-Type", "application/json");
    lines.push(`--data-raw ${quote(JSON.stringify(body))}`);
  }
  return lines.join(" \\\n  ");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied as curl");
  } catch {
    // Without TLS, or where the browser forbids it, it can be copied by hand.
    const area = h("textarea", { readonly: true, rows: 8, class: "code", "aria-label": "The command", spellcheck: "false" });
    area.value = text;
    open({ title: "Copy as curl", body: [area], first: area, size: "wide" });
    area.select();
  }
}

/** A button that copies the request that `request()` gives. */
export function curlButton(request, what) {
  const label = what ? `Copy as curl: ${what}` : "Copy as curl";
  const click = () => copy(curlOf(request()));
  return h("button", { type: "button", class: "quiet", "aria-label": label, data: { key: `curl-${what ?? ""}` }, onclick: click }, "Copy as curl");
}
