// The form that sends a request, and its answer.

import { base, headersFor, withQuery } from "../page/api.js";
import { curlButton } from "../page/curl.js";
import { field, fill, h } from "../page/dom.js";
import { exampleOf, idFor, isCarried, remember, warningOf } from "./known.js";
import { resolve } from "./schema.js";

/** The most of an answer that is shown, in characters. */
const MOST_SHOWN = 200_000;

/** Headers that the browser, or who somebody is, decides. */
const OWN = new Set(["x-user-id", "authorization"]);

function inputOf(api, parameter) {
  let schema = resolve(api, parameter.schema);
  if (schema.anyOf) schema = resolve(api, schema.anyOf[0]);
  const properties = { name: `${parameter.in}.${parameter.name}`, spellcheck: "false", autocomplete: "off" };
  const choices = schema.type === "boolean" ? ["true", "false"] : schema.enum;
  if (!choices) {
    const isId = parameter.in === "path" && isCarried(api, parameter.name);
    const value = parameter.in === "path" && !isId ? parameter.example : undefined;
    const placeholder = schema.default === undefined || schema.default === null ? schema.format : String(schema.default);
    const input = h("input", { ...properties, value, placeholder, required: parameter.in === "path", inputmode: schema.type === "integer" ? "numeric" : undefined });
    // An invented id would be of nothing.
    if (isId) idFor(api, parameter.name).then((id) => (input.value ||= id));
    return input;
  }
  const option = (choice) => h("option", { value: choice, selected: choice === parameter.example }, choice);
  return h("select", properties, !parameter.required && h("option", { value: "" }, "–"), choices.map(option));
}

/** Puts the ids of what is there into the example of a body. */
async function fitBody(api, body, area) {
  const written = area.value;
  const example = exampleOf(api, body);
  const letter = example?.ids && (await idFor(api, "letter_id"));
  const batch = example?.batch_id && (await idFor(api, "batch_id"));
  if (!letter && !batch) return;
  const fitting = { ...example, ...(letter ? { ids: [letter] } : {}), ...(batch ? { batch_id: batch } : {}) };
  // Whoever has written meanwhile keeps what they wrote.
  if (area.value === written) area.value = JSON.stringify(fitting, null, 2);
}

/** A body as it is read by people: JSON with its lines. */
function shown(type, text) {
  if (!/\bjson\b/.test(type)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** The form, and where its answer is shown. `close` ends what is under way. */
export function tryView(api, operation, parameters, body) {
  const isSocket = operation.responses["101"] !== undefined;
  if (isSocket) return { element: h("p", { class: "note" }, "A web socket cannot be tried with a form."), close() {} };
  const inputs = parameters.filter((one) => !OWN.has(one.name.toLowerCase())).map((one) => [one, inputOf(api, one)]);
  const area = body && h("textarea", { name: "body", class: "code", rows: 10, spellcheck: "false", value: JSON.stringify(exampleOf(api, body), null, 2) });
  if (area) fitBody(api, body, area);
  const warning = warningOf(api, operation, body);
  const place = h("div", { class: "outcome", role: "status", "aria-live": "polite" });
  let underWay = null;

  const request = () => {
    let path = operation.path.slice(1);
    const query = {};
    const headers = {};
    for (const [parameter, input] of inputs) {
      const value = input.value.trim();
      if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (value && parameter.in === "query") query[parameter.name] = value;
      else if (value) headers[parameter.name] = value;
    }
    return { method: operation.method.toUpperCase(), path: withQuery(path, query), headers, text: area?.value.trim() || undefined };
  };
  /** For curl the body is a value; one that is no JSON is sent as it is. */
  const forCurl = () => {
    const { text, ...rest } = request();
    try {
      return { ...rest, body: text && JSON.parse(text) };
    } catch {
      return { ...rest, body: text };
    }
  };

  async function send() {
    const missing = inputs.find(([, input]) => input.required && input.value.trim() === "");
    if (missing) {
      fill(place, h("p", { class: "note bad" }, `${missing[0].name} is needed: there is none that this page knows.`));
      return missing[1].focus();
    }
    underWay?.abort();
    const mine = new AbortController();
    underWay = mine;
    const { method, path, headers, text } = request();
    const began = performance.now();
    const said = h("p", { class: "member" }, "Waiting for the answer …");
    const stop = h("button", { type: "button", class: "quiet", onclick: () => mine.abort() }, "Stop");
    const output = h("pre", { tabindex: 0, "aria-label": "The body of the answer" });
    fill(place, said, stop);
    try {
      const sent = headersFor(path, text === undefined ? headers : { "Content-Type": "application/json", ...headers });
      const answer = await fetch(new URL(path, base), { method, headers: sent, body: text, signal: mine.signal, cache: "no-store" });
      const tone = answer.ok ? "good" : "bad";
      const head = h("details", {}, h("summary", {}, "Headers"), h("pre", { tabindex: 0, "aria-label": "The headers of the answer" }, [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n")));
      const line = h("p", { class: "member" }, h("span", { class: "code-of", data: { tone } }, String(answer.status)), ` ${answer.statusText} after ${Math.round(performance.now() - began)} ms`);
      fill(place, line, stop, head, output);
      let read = "";
      const type = answer.headers.get("Content-Type") ?? "";
      for await (const part of parts(answer)) {
        read = (read + part).slice(0, MOST_SHOWN);
        // A stream is shown as it comes, anything else once it is there.
        if (type.startsWith("text/event-stream")) output.textContent = read;
      }
      output.textContent = shown(type, read) || "(no body)";
      if (answer.ok && /\bjson\b/.test(type)) remember(api, operation, String(answer.status), JSON.parse(read));
    } catch (error) {
      if (!mine.signal.aborted) fill(place, h("p", { class: "note bad" }, `The server cannot be reached: ${error.message}`));
    } finally {
      stop.remove();
    }
  }

  const element = h(
    "form",
    {
      class: "try",
      novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        send();
      },
    },
    h("h2", {}, "Try it"),
    h("div", { class: "inputs" }, inputs.map(([parameter, input]) => field(`${parameter.name}${parameter.required ? " *" : ""}`, input))),
    area && field("Body", area),
    warning && h("p", { class: "hint" }, warning),
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Send"), curlButton(forCurl)),
    place,
  );
  return { element, close: () => underWay?.abort() };
}

/** The parts of a body as they come, as text. */
async function* parts(answer) {
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done) return;
    yield value;
  }
}
