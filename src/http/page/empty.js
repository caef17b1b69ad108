// What stands in the place of a list in which there is nothing.

import { h } from "./dom.js";
import { askWho, whoAmI } from "./identity.js";

const box = (...children) => h("div", { class: "empty sheet pad" }, children);

/** Nobody has made a batch in this name yet; or it is the wrong one. */
const noneYet = () =>
  box(
    h("p", {}, "There is no batch of ", h("strong", {}, whoAmI()), " yet."),
    h("p", { class: "small" }, "One is made by ", h("code", {}, "rephase batch submit FOLDER --course CODE"), " or by a ", h("a", { href: "docs#/registerBatch" }, "request"), ". It comes into this list by itself."),
    h("p", { class: "small" }, "If there should be some, they may be in another name."),
    h("button", { type: "button", data: { key: "other-name" }, onclick: () => askWho() }, "Say another name…"),
  );

/** What is said where no batch is shown: `isSearched` and `isFiltered` tell why, `clear` takes both away. */
export function emptyNote({ search, isFiltered, clear }) {
  if (!search && !isFiltered) return noneYet();
  const text = search ? `No batch ${isFiltered ? "that fits the filter " : ""}has “${search}” in its id.` : "No batch fits the filter.";
  return box(h("p", {}, text), h("button", { type: "button", data: { key: "clear-filter" }, onclick: clear }, search && !isFiltered ? "Clear the search" : "Clear the filter"));
}
