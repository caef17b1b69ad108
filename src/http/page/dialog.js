// Dialogs: the browser's own, which keep the focus inside, close with Escape, and give the focus back.

import { byKey, h } from "./dom.js";
import { askWho } from "./identity.js";

let number = 0;

/** What was in focus has it again; where it is gone, what took its place (the same `data-key`), else the content. */
function giveBack(opener, key) {
  const target = (opener?.isConnected && !opener.disabled && opener) || (key && byKey(key)) || document.getElementById("main");
  target.focus();
}

/**
 * Opens a dialog. `submit.run(close)` is called when it is confirmed, by the button or the Enter key; `extra` are
 * buttons beside it; `back` is the `data-key` that gets the focus where the opener is gone at the end.
 */
export function open({ title, body, submit, extra = [], first, back, size = "narrow", onclose }) {
  const opener = document.activeElement;
  const key = opener?.closest?.("[data-key]")?.dataset.key ?? back;
  const id = `dialog-${(number += 1)}`;
  const dialog = h("dialog", { class: size, "aria-labelledby": id });
  const close = () => dialog.close();
  const button = submit && h("button", { type: "submit", class: submit.tone ?? "primary" }, submit.label);
  const form = h(
    "form",
    {
      novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        if (!button?.disabled) submit?.run(close);
      },
    },
    h("h2", { id }, title),
    h("div", { class: "dialog-body" }, body),
    h(
      "div",
      { class: "actions" },
      extra,
      h("button", { type: "button", class: "quiet", onclick: close }, submit ? "Not now" : "Close"),
      button,
    ),
  );
  dialog.append(form);
  dialog.addEventListener("close", () => {
    const said = dialog.querySelector("#said");
    if (said) document.body.append(said);
    dialog.remove();
    onclose?.();
    const target = byKey(key ?? "") ? key : back;
    giveBack(opener === document.body ? null : opener, target);
  });
  document.body.append(dialog);
  dialog.showModal();
  first?.focus();
  return { dialog, button, close };
}

/** An error in full: what it says, its code, and what to look for in the log. Whoever has to sign in can do that there. */
export function problemNote(problem) {
  const details = [problem.status || null, problem.code].filter(Boolean).join(" · ");
  return h(
    "div",
    { class: "note bad", role: "alert" },
    h("p", {}, problem.message),
    details && h("p", { class: "small" }, details),
    problem.correlationId && h("p", { class: "small" }, "correlation id ", h("code", {}, problem.correlationId)),
    problem.status === 401 && h("button", { type: "button", class: "sign-in", onclick: () => askWho({ because: problem, path: problem.path }) }, "Give another token…"),
  );
}
