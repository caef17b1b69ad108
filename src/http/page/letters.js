// Dead letters: messages that no consumer could handle, for whoever runs the server.

import { ask, get, withQuery } from "./api.js";
import { curlButton } from "./curl.js";
import { open, problemNote } from "./dialog.js";
import { announce, byKey, chip, field, fill, h, select } from "./dom.js";
import { tableOf } from "./jobs.js";
import { newKey } from "./retry.js";
import { count, short, time } from "./words.js";

const PATH = "internal/v1/dead-letters";

const DECISIONS = {
  redrive: { label: "Redrive", done: "on the way again", tone: "primary", means: "It is sent on its way again, as the same message to the same consumer. If that refuses it again, it comes back here." },
  discard: { label: "Discard", done: "discarded", tone: "danger", means: "It is closed, and nobody gets it. What it was about stays as it is." },
};

/** When it is looked whether a letter that was redriven came back, in milliseconds after the time before. */
const LOOKS_MS = [400, 1_000, 2_000, 4_000];

/** Says how many of these came back: the consumer may refuse them again in the same second. */
async function watchRedriven(ids, done) {
  for (const wait of LOOKS_MS) {
    await new Promise((over) => setTimeout(over, wait));
    const open = await openAmong(ids).catch(() => []);
    if (open.length === 0) continue;
    await done();
    const which = ids.length === 1 ? "The dead letter" : `${open.length.toLocaleString("en")} of ${count(ids.length, "dead letter")}`;
    return announce(`${which} came back: it was refused again`, "bad");
  }
}

/** Those of the letters that are open now. */
async function openAmong(ids) {
  if (ids.length === 1) return (await get(`${PATH}/${encodeURIComponent(ids[0])}`)).body.state === "open" ? ids : [];
  const { body } = await get(withQuery(PATH, { state: "open", limit: 200 }));
  return ids.filter((id) => body.dead_letters.some((letter) => letter.id === id));
}

/** Opens the dialog of a decision about these letters. */
function openDecision(name, ids, done, back) {
  const { label, tone, means, done: past } = DECISIONS[name];
  const key = newKey();
  const trouble = h("div", {});
  const request = () => {
    const headers = { "Idempotency-Key": key };
    return ids.length === 1
      ? { method: "POST", path: `${PATH}/${encodeURIComponent(ids[0])}/${name}`, body: {}, headers }
      : { method: "POST", path: `${PATH}/${name}`, body: { ids }, headers };
  };
  const send = async (close) => {
    const { method, path, body, headers } = request();
    try {
      const { body: answer } = await ask(method, path, { body, headers });
      await done();
      close();
      const decided = answer.decided ?? 1;
      announce(`${count(decided, "dead letter")} ${past}`, "good");
      if (name === "redrive") watchRedriven(ids, done);
    } catch (problem) {
      fill(trouble, problemNote(problem));
    }
  };
  open({
    title: `${label} ${ids.length === 1 ? `dead letter ${short(ids[0])}` : count(ids.length, "dead letter")}`,
    back,
    body: [h("p", {}, means), trouble],
    submit: { label, run: send, tone },
    extra: [curlButton(request, name)],
  });
}

/** The list. */
export function lettersView(query) {
  const states = [["open", "open"], ["redriven", "redriven"], ["discarded", "discarded"], ["", "any"]];
  const state = select("state", states, query.get("state")?.replace(/^any$/, "") ?? "open");
  const chosen = new Set();
  const body = h("tbody", {});
  const trouble = h("div", {});
  const more = h("button", { type: "button", hidden: true, onclick: () => load(more.dataset.cursor) }, "Older ones");
  const decide = Object.entries(DECISIONS).map(([name, { label }]) => {
    const click = () => openDecision(name, [...chosen], () => load(), "letters-title");
    return h("button", { type: "button", disabled: true, data: { key: `many-${name}` }, onclick: click }, `${label} the chosen…`);
  });
  const update = () => decide.forEach((button) => (button.disabled = chosen.size === 0));
  const rowOf = (letter) => {
    const box = h("input", { type: "checkbox", "aria-label": `Choose dead letter ${short(letter.id)}`, disabled: letter.state !== "open" });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(letter.id);
      else chosen.delete(letter.id);
      update();
    });
    return h(
      "tr",
      { data: { key: letter.id } },
      h("td", {}, box),
      h("th", { scope: "row" }, h("a", { href: `#/dead-letters/${letter.id}`, title: letter.id }, short(letter.id))),
      h("td", {}, chip(letter.state)),
      h("td", { class: "wide-text" }, letter.topic, h("span", { class: "second" }, letter.error)),
      h("td", {}, letter.service),
      h("td", { class: "number" }, letter.attempts),
      h("td", {}, time(letter.last_at)),
    );
  };
  async function load(cursor) {
    try {
      const { body: page } = await get(withQuery(PATH, { state: state.value, cursor }));
      if (!cursor) {
        body.replaceChildren();
        chosen.clear();
        update();
      }
      body.append(...page.dead_letters.map(rowOf));
      if (body.childElementCount === 0) body.append(h("tr", {}, h("td", { colspan: 7 }, "There is none.")));
      more.hidden = page.next_cursor === null;
      more.dataset.cursor = page.next_cursor ?? "";
      fill(trouble);
    } catch (problem) {
      fill(trouble, problemNote(problem));
    }
  }
  state.addEventListener("change", () => {
    history.pushState(null, "", `#${withQuery("/dead-letters", { state: state.value || "any" })}`);
    load();
  });
  load();
  const table = tableOf("Dead letters, the newest first", ["Choose", "Letter", "State", "Topic and error", "Consumer", "Deliveries", "Last"], body);
  const element = h(
    "section",
    {},
    h("div", { class: "heading" }, h("h1", { tabindex: -1, data: { key: "letters-title" } }, "Dead letters"), decide),
    h("div", { class: "filters" }, field("State", state)),
    trouble,
    h("div", { class: "sheet" }, table),
    more,
  );
  return { title: "Dead letters", element };
}

const envelopeText = (envelope) => (typeof envelope === "string" ? envelope : JSON.stringify(envelope, null, 2));

function historyItem(event) {
  const text = event.what === "refused" ? `refused after ${count(event.deliveries, "delivery", "deliveries")}: ${event.error}` : `${event.what} by ${event.by}`;
  return h("li", {}, h("time", { datetime: event.at }, time(event.at)), " ", text);
}

/** One letter, with its message and all that happened to it. */
export function letterView(id) {
  const place = h("div", {});
  const path = `${PATH}/${encodeURIComponent(id)}`;
  async function load() {
    let letter;
    try {
      letter = (await get(path)).body;
    } catch (problem) {
      fill(place, problemNote(problem));
      return;
    }
    const act = (name) => {
      const { label, tone } = DECISIONS[name];
      return h("button", { type: "button", class: tone, data: { key: name }, onclick: () => openDecision(name, [id], load, "letter-title") }, `${label}…`);
    };
    const batch = letter.message.envelope?.data?.batch_id ?? letter.key;
    fill(
      place,
      h("div", { class: "heading" }, chip(letter.state), letter.state === "open" && [act("redrive"), act("discard")]),
      h("div", { class: "note bad" }, h("p", {}, letter.error), h("p", { class: "small" }, `${letter.topic} · ${letter.service} · ${count(letter.attempts, "delivery", "deliveries")}`)),
      h("p", {}, "About batch ", h("a", { href: `#/batches/${encodeURIComponent(batch)}` }, h("code", {}, batch))),
      h("h2", {}, "What happened"),
      h("ol", { class: "events" }, letter.history.map(historyItem)),
      h("h2", {}, "The message"),
      h("pre", { tabindex: 0, role: "region", "aria-label": "The message" }, envelopeText(letter.message.envelope)),
    );
    // The buttons are gone once it is decided.
    if (document.activeElement === document.body) byKey("letter-title")?.focus();
  }
  load();
  const element = h(
    "section",
    {},
    h("p", { class: "crumbs" }, h("a", { href: "#/dead-letters" }, "Dead letters")),
    h("h1", { tabindex: -1, data: { key: "letter-title" } }, `Dead letter ${short(id)}`),
    place,
  );
  return { title: "Dead letter", element };
}
