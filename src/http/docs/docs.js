// The API, to read and to try: what /openapi.json says, operation by operation. Which one stands behind the # of the address.

import { base } from "../page/api.js";
import { startBar } from "../page/bar.js";
import { fill, h } from "../page/dom.js";
import { count } from "../page/words.js";
import { methodMark, operationView } from "./operation.js";
import { line, prose } from "./schema.js";

const main = document.getElementById("main");
const list = document.getElementById("operations");

/** Every operation, with its path and method. */
function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })),
  );
}

/** The operations by tag, those whose words have all that was asked for. */
function drawList(api, operations, wanted) {
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (operation) => `${operation.method} ${operation.path} ${operation.summary} ${operation.operationId}`.toLowerCase();
  const fits = operations.filter((operation) => words.every((word) => text(operation).includes(word)));
  const link = (operation) =>
    h(
      "li",
      {},
      h(
        "a",
        { href: `#/${operation.operationId}`, data: { id: operation.operationId }, title: `${operation.method.toUpperCase()} ${operation.path}` },
        methodMark(operation.method),
        h("span", {}, operation.summary),
      ),
    );
  const groups = api.tags.map((tag) => {
    const own = fits.filter((operation) => operation.tags.includes(tag.name));
    return own.length > 0 && h("section", {}, h("h2", {}, tag.name), h("ul", {}, own.map(link)));
  });
  return groups.some(Boolean) ? groups : [h("p", { class: "hint" }, "No operation has these words.")];
}

function overview(api, operations) {
  const row = (tag) =>
    h("div", {}, h("dt", {}, tag.name), h("dd", {}, line(tag.description), ` ${count(operations.filter((one) => one.tags.includes(tag.name)).length, "operation")}.`));
  return h(
    "article",
    {},
    h("h1", { tabindex: -1 }, `${api.info.title} ${api.info.version}`),
    prose(api.info.description),
    h("p", {}, h("a", { href: "openapi.json" }, "openapi.json"), ` is this description for programs (OpenAPI ${api.openapi}).`),
    h("h2", {}, "What there is"),
    h("dl", { class: "resources" }, api.tags.map(row)),
    h("h2", {}, "How a request says who asks"),
    h(
      "dl",
      { class: "resources" },
      Object.entries(api.components.securitySchemes).map(([name, scheme]) => h("div", {}, h("dt", {}, name), h("dd", {}, prose(scheme.description)))),
    ),
  );
}

function start(api) {
  const operations = operationsOf(api);
  const search = h("input", { type: "search", id: "search", placeholder: "Search", "aria-label": "Search the operations", spellcheck: "false" });
  const found = h("div", {});
  const draw = () => fill(found, drawList(api, operations, search.value));
  search.addEventListener("input", () => {
    draw();
    mark();
  });
  list.replaceChildren(search, found);
  draw();

  const chosen = () => decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  const mark = () => {
    for (const link of list.querySelectorAll("a")) {
      if (link.dataset.id === chosen()) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  };
  let shown = null;
  const show = ({ isFirst = false } = {}) => {
    shown?.close?.();
    const operation = operations.find((one) => one.operationId === chosen());
    shown = operation ? operationView(api, operation) : { element: overview(api, operations), title: "API" };
    document.title = `${shown.title} · rephase API`;
    main.replaceChildren(shown.element);
    mark();
    if (!isFirst) {
      window.scrollTo(0, 0);
      main.querySelector("h1")?.focus();
    }
  };
  window.addEventListener("hashchange", () => show());
  show({ isFirst: true });
}

startBar(main);

try {
  const answer = await fetch(new URL("openapi.json", base));
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  start(await answer.json());
} catch (error) {
  main.replaceChildren(h("p", { class: "note bad", role: "alert" }, `The description cannot be read: ${error.message}`));
}
