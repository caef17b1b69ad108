// One operation: what it takes, what it answers, and a form that asks.

import { h } from "../page/dom.js";
import { namedView, prose, resolve, schemaView } from "./schema.js";
import { tryView } from "./send.js";

/** A method, as a mark. */
export const methodMark = (method) => h("span", { class: "method", data: { method } }, method === "delete" ? "del" : method);

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** Examples of a body. */
function examples(content) {
  const named = Object.entries(content.examples ?? {}).map(([name, { value }]) => [name, value]);
  const all = content.example === undefined ? named : [["Example", content.example], ...named];
  return all.map(([name, value]) => h("details", { class: "example" }, h("summary", {}, name), h("pre", { tabindex: 0, "aria-label": `${name}, as JSON` }, pretty(value))));
}

function answerView(api, [status, described]) {
  const answer = resolve(api, described);
  const isError = Number(status) >= 400;
  const headers = Object.entries(answer.headers ?? {}).filter(([name]) => name !== "X-Correlation-ID");
  const contents = Object.entries(answer.content ?? {});
  return h(
    "details",
    { class: "answer", open: !isError },
    h("summary", {}, h("span", { class: "code-of", data: { tone: isError ? "bad" : "good" } }, status), h("span", {}, prose(answer.description))),
    headers.length > 0 && h("ul", { class: "members" }, headers.map(([name, header]) => namedView(api, name, resolve(api, header), "Header"))),
    contents.map(([type, content]) => [h("p", { class: "hint" }, type), examples(content), !isError && schemaView(api, content.schema)]),
  );
}

/** How whoever asks may say who that is. */
function whoMay(api, operation) {
  if (operation.security.length === 0) return h("p", { class: "hint" }, "For everybody.");
  const names = operation.security.flatMap((one) => Object.keys(one));
  const isFree = operation.security.some((one) => Object.keys(one).length === 0);
  const spoken = names.map((name) => {
    const scheme = api.components.securitySchemes[name];
    return scheme.type === "http" ? `a bearer token (${name})` : `${scheme.name} in the ${scheme.in}`;
  });
  return h("p", { class: "hint" }, `Who asks: ${spoken.join(", or ")}${isFree ? "; or nobody, where the server has no such token" : ""}.`);
}

/** The view of an operation. */
export function operationView(api, operation) {
  const parameters = operation.parameters.map((parameter) => resolve(api, parameter));
  const body = operation.requestBody?.content["application/json"];
  const form = tryView(api, operation, parameters, body);
  const element = h(
    "article",
    {},
    h("h1", { tabindex: -1 }, operation.summary),
    h("p", { class: "route" }, methodMark(operation.method), h("code", {}, operation.path)),
    operation.description && prose(operation.description),
    whoMay(api, operation),
    form.element,
    parameters.length > 0 && [h("h2", {}, "Parameters"), h("ul", { class: "members" }, parameters.map((one) => namedView(api, one.name, one, `In the ${one.in}`)))],
    body && [h("h2", {}, operation.requestBody.required ? "Body" : "Body, which may be left out"), schemaView(api, body.schema)],
    h("h2", {}, "Answers"),
    Object.entries(operation.responses).map((one) => answerView(api, one)),
  );
  return { element, title: operation.summary, close: form.close };
}
