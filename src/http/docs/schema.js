// Schemas, in words: what a value is, what it may be, and what is in it.

import { h } from "../page/dom.js";

/** What a reference stands for. */
export function resolve(api, value) {
  if (!value?.$ref) return value ?? {};
  const found = value.$ref.replace("#/", "").split("/").reduce((place, name) => place?.[name], api) ?? {};
  const { $ref, ...beside } = value;
  return { ...found, ...beside };
}

/** The name of the schema that is referred to. */
export const nameOf = (value) => value?.$ref?.split("/").at(-1);

/** A line with `code` in it. */
export const line = (text) => text.split("`").map((piece, index) => (index % 2 ? h("code", {}, piece) : piece));

/** A text with `code` in it, and paragraphs. */
export function prose(text = "") {
  return text.split("\n\n").map((paragraph) => h("p", { class: "prose" }, line(paragraph)));
}

const isNull = (schema) => schema.type === "null";

/** The same without null, and whether that may be. */
function solid(api, schema) {
  const choices = schema.anyOf?.filter((choice) => !isNull(choice));
  if (choices?.length === 1 && choices.length < schema.anyOf.length) {
    const { anyOf, ...beside } = schema;
    return { schema: { ...resolve(api, choices[0]), ...beside }, name: nameOf(choices[0]), mayBeNull: true };
  }
  const types = Array.isArray(schema.type) ? schema.type.filter((type) => type !== "null") : null;
  return { schema: types ? { ...resolve(api, schema), type: types.join(" or ") } : resolve(api, schema), name: nameOf(schema), mayBeNull: types !== null };
}

/** The kind of a value, in a few words. */
function kindOf(api, schema, name) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.items) {
    const inner = solid(api, schema.items);
    return `array of ${inner.name ?? kindOf(api, inner.schema)}`;
  }
  const kind = schema.format && !/^u?int|double/.test(schema.format) ? `${schema.type} (${schema.format})` : (schema.type ?? "anything");
  return name ? `${name}: ${kind}` : kind;
}

/** Its bounds, in words. */
function boundsOf(schema) {
  const between = (least, most, of) => {
    if (least !== undefined && most !== undefined) return `${least} to ${most}${of}`;
    if (least !== undefined) return `at least ${least}${of}`;
    return most !== undefined && `at most ${most}${of}`;
  };
  return [
    between(schema.minimum, schema.maximum, ""),
    between(schema.minLength, schema.maxLength, " characters"),
    between(schema.minItems, schema.maxItems, " members"),
    schema.pattern && schema.pattern !== "\\S" && `like ${schema.pattern}`,
    schema.pattern === "\\S" && "not only white space",
    schema.default !== undefined && schema.default !== null && `${JSON.stringify(schema.default)} where nothing is said`,
  ].filter(Boolean);
}

/** The most values of an enumeration that are shown before somebody asks for all. */
const FEW = 12;

function values(schema) {
  if (!schema.enum) return null;
  const all = h("span", { class: "values" }, schema.enum.map((value) => h("code", {}, String(value))));
  return schema.enum.length > FEW ? h("details", {}, h("summary", {}, `one of ${schema.enum.length}`), all) : all;
}

/** What is within a value: the members of an object, or of each object of a list. */
function within(api, schema, path) {
  const map = typeof schema.additionalProperties === "object" ? schema.additionalProperties : null;
  const inner = schema.items ?? map;
  if (!schema.properties && !schema.oneOf && inner) {
    const { schema: found, name } = solid(api, inner);
    return name && path.includes(name) ? null : within(api, found, name ? [...path, name] : path);
  }
  if (!schema.properties) return null;
  const members = Object.entries(schema.properties);
  const required = new Set(schema.required ?? []);
  members.sort(([one], [other]) => required.has(other) - required.has(one));
  return h("ul", { class: "members" }, members.map(([name, member]) => memberView(api, name, member, required.has(name), path)));
}

function memberView(api, key, member, isRequired, path) {
  const { schema, name, mayBeNull } = solid(api, member);
  const isKnown = name && path.includes(name);
  const inner = isKnown ? null : within(api, schema, name ? [...path, name] : path);
  const facts = [isRequired ? "required" : null, mayBeNull ? "may be null" : null, ...boundsOf(schema)].filter(Boolean);
  return h(
    "li",
    {},
    h("div", { class: "member" }, h("code", { class: "key" }, key), h("span", { class: "kind" }, kindOf(api, schema, name)), facts.length > 0 && h("span", { class: "facts" }, facts.join(" · "))),
    schema.description && prose(schema.description),
    values(schema),
    inner && h("details", {}, h("summary", {}, "members"), inner),
  );
}

/** A schema, in full. */
export function schemaView(api, value) {
  const { schema, name } = solid(api, value);
  const facts = boundsOf(schema);
  return h(
    "div",
    { class: "schema" },
    h("p", { class: "member" }, h("span", { class: "kind" }, kindOf(api, schema, name)), facts.length > 0 && h("span", { class: "facts" }, facts.join(" · "))),
    schema.description && prose(schema.description),
    schema.additionalProperties === false && h("p", { class: "hint" }, "Other members are refused."),
    values(schema),
    within(api, schema, name ? [name] : []),
  );
}

/** One parameter or header, as a member. */
export const namedView = (api, name, described, where) =>
  memberView(api, name, { ...resolve(api, described.schema), description: [where, described.description].filter(Boolean).join(". ") }, described.required === true, []);
