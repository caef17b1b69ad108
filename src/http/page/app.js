// The page: its views, and which of them is shown. Where somebody is stands behind the # of the address.

import { happenings } from "./api.js";
import { startBar } from "./bar.js";
import { batchView } from "./batch.js";
import { h, say } from "./dom.js";
import { askWho, whoAmI } from "./identity.js";
import { jobsView, jobView } from "./jobs.js";
import { letterView, lettersView } from "./letters.js";
import { listView } from "./list.js";
import { startLive, stopLive } from "./live.js";
import { time } from "./words.js";

const main = document.getElementById("main");

/** The view that an address names. A view has a `title`, an `element`, and a `close` for what it has going on. */
function viewOf(place, query) {
  const [name, id] = place;
  if (name === "batches" && id) return batchView(id);
  if (name === "retry-jobs") return id ? jobView(id) : jobsView();
  if (name === "dead-letters") return id ? letterView(id) : lettersView(query);
  if (name === "batches" || name === "") return listView(query);
  return nowhere(`This page has nothing at “#/${place.join("/")}”.`);
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

/** What is shown for an address that nobody can read, or that is none of this page. */
const nowhere = (text = "This address cannot be read: there is something wrong behind a % in it.") => {
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
happenings.addEventListener("identity", ({ detail }) => {
  // The same person with another token goes on where they are: what they have written in a dialog stays.
  if (!detail.isSame || !document.querySelector("dialog[open]")) show();
});
happenings.addEventListener("unauthenticated", ({ detail }) => {
  stopLive();
  // One question at a time.
  if (!document.querySelector("dialog[open]")) askWho({ because: detail.problem, path: detail.path });
});

/** The last time when everything in sight was as it is at the server. */
let lastHeard = new Date();

happenings.addEventListener("live", ({ detail }) => {
  const live = document.getElementById("live");
  const away = document.getElementById("away");
  if (live.dataset.state === "on" && detail.state !== "on") lastHeard = new Date();
  live.dataset.state = detail.state;
  say(document.getElementById("live-text"), detail.text);
  away.hidden = detail.state !== "away";
  if (!away.hidden) say(away, `The server cannot be reached. What is shown is how things stood at ${time(lastHeard)}; it is tried again by itself.`);
});

show({ isFirst: true });
startLive();
if (!whoAmI()) askWho();
