// The page: its views, and which of them is shown. Where somebody is stands behind the # of the address.

import { happenings } from "./api.js";
import { startBar } from "./bar.js";
import { batchView } from "./batch.js";
import { h, say } from "./dom.js";
import { askWho, whoAmI } from "./identity.js";
import { jobsView, jobView } from "./jobs.js";
import { letterView, lettersView } from "./letters.js";
import { listView } from "./list.js";
import { startLive } from "./live.js";

const main = document.getElementById("main");

/** The view that an address names. A view has a `title`, an `element`, and a `close` for what it has going on. */
function viewOf(place, query) {
  const [name, id] = place;
  if (name === "batches" && id) return batchView(id);
  if (name === "retry-jobs") return id ? jobView(id) : jobsView();
  if (name === "dead-letters") return id ? letterView(id) : lettersView(query);
  return listView(query);
}

/** Where the address is; `place` is empty where it cannot be read. */
const parse = () => {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  try {
    return { place: path.split("/").map(decodeURIComponent), query: new URLSearchParams(query) };
  } catch {
    return { place: [], query: new URLSearchParams() };
  }
};

/** What is shown for an address that nobody can read. */
const nowhere = () => {
  const text = "This address cannot be read: there is something wrong behind a % in it.";
  const back = h("p", {}, h("a", { href: "#/batches" }, "Batches"));
  return { title: "No such address", element: h("section", { class: "empty" }, h("h1", { tabindex: -1 }, "No such address"), h("p", { role: "alert" }, text), back) };
};

let shown = null;

function show({ isFirst = false } = {}) {
  const { place, query } = parse();
  shown?.close?.();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const name = place.length === 0 ? "" : place[0] || "batches";
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!whoAmI()) {
    shown = { title: "Who are you?", element: h("section", { class: "empty" }, h("h1", { tabindex: -1 }, "Batches"), h("p", {}, "Say who you are to see your batches."), h("button", { type: "button", class: "primary", onclick: () => askWho() }, "Who are you?")) };
  } else {
    shown = place.length === 0 ? nowhere() : viewOf(place, query);
  }
  document.title = `${shown.title} · rephase`;
  main.replaceChildren(shown.element);
  main.dataset.view = name;
  // Whoever cannot see that the page is another hears its heading.
  if (!isFirst) (main.querySelector("h1") ?? main).focus();
}

window.addEventListener("hashchange", () => show());
startBar(main);
happenings.addEventListener("identity", () => show());
happenings.addEventListener("unauthenticated", ({ detail }) => {
  // One question at a time.
  if (!document.querySelector("dialog[open]")) askWho({ because: detail.problem, path: detail.path });
});
happenings.addEventListener("live", ({ detail }) => {
  document.getElementById("live").dataset.state = detail.state;
  say(document.getElementById("live-text"), detail.text);
});

show({ isFirst: true });
startLive();
if (!whoAmI()) askWho();
