// Elements. What comes from the server is only ever set as text: nothing on this page reads HTML.

import { look } from "./words.js";

// What a browser does not show as a character, but shows what follows it by: in another order, or on another line.
const STEERING = /[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** `text` with what steers the page shown as its number, as the command line shows it. */
export const plain = (text) => String(text).replace(STEERING, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);

const shown = (child) => (child instanceof Node ? child : plain(child));

/**
 * Makes an element. A property that is a function is a listener (`onclick`); `data` is the dataset; `false`, `null` and
 * `undefined` leave an attribute or a child out. Children may be lists of children, however deep.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : READ_ALOUD.has(name) ? plain(value) : String(value));
  }
  element.append(...children.flat(Infinity).filter(isThere).map(shown));
  return element;
}

/** Attributes that people see or hear. */
const READ_ALOUD = new Set(["title", "aria-label", "placeholder"]);

const isThere = (child) => child !== undefined && child !== null && child !== false;

/** Sets the text of an element, and leaves it alone where it says so already. */
export function say(element, text) {
  const safe = plain(text);
  if (element.textContent !== safe) element.textContent = safe;
}

/** The children of `element` from now on, with the focus where it was: on the child with the same `data-key`. */
export function fill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.dataset.key;
  element.replaceChildren(...children.flat(Infinity).filter(isThere).map(shown));
  if (focused && !focused.isConnected && key) byKey(key, element)?.focus();
}

/** The element with this `data-key`. */
export const byKey = (key, within = document) => within.querySelector(`[data-key="${CSS.escape(key)}"]`);

/** A status with its sign. */
export function chip(status, more) {
  const { label, sign, tone } = look(status);
  return h(
    "span",
    { class: "chip", data: { tone }, title: String(status).replaceAll("_", " ") },
    h("span", { "aria-hidden": "true", class: "sign" }, sign),
    h("span", {}, more ? `${label} ${more}` : label),
  );
}

/** A code, which may be broken after each of its words. */
export const breakable = (code) => String(code).split(/(?<=_)/).flatMap((word, place) => (place === 0 ? [word] : [h("wbr"), word]));

/** A field with its label. */
export function field(label, control, hint) {
  if (!control.id) control.id = `field-${(field.count = (field.count ?? 0) + 1)}`;
  if (hint) {
    hint.id = `${control.id}-hint`;
    control.setAttribute("aria-describedby", hint.id);
  }
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint);
}

/**
 * A list to choose from; `options` are pairs of value and label. What is chosen and is none of them, as an address may say,
 * is one more: the server says what is wrong with it.
 */
export function select(name, options, chosen) {
  const isKnown = !chosen || options.some(([value]) => value === chosen);
  if (!isKnown) options = [...options, [chosen, chosen]];
  const option = ([value, label]) => h("option", { value, selected: value === chosen }, label);
  return h("select", { name }, options.map(option));
}

/** A box to tick, with its label. */
export function tick(label, properties) {
  const box = h("input", { type: "checkbox", ...properties });
  return { box, element: h("label", { class: "tick" }, box, h("span", {}, label)) };
}

/** How long something that is said stays in sight. */
const SAID_MS = 8_000;

/** So many things that were said are in sight at once. */
const MOST_SAID = 3;

/** Says something to everybody: in sight for a while, and aloud. */
export function announce(text, tone = "plain") {
  const place = document.getElementById("said");
  // A dialog is above everything else on the page, so what is said while one is open is said in it.
  const home = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
  if (place.parentElement !== home) home.append(place);
  const line = h("p", { data: { tone } }, text);
  place.append(line);
  while (place.childElementCount > MOST_SAID) place.firstElementChild.remove();
  setTimeout(() => line.remove(), SAID_MS);
}
