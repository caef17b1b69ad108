// The bar above every page: who asks, and the way past it.

import { happenings } from "./api.js";
import { say } from "./dom.js";
import { askWho, whoAmI } from "./identity.js";

function showWho() {
  const who = document.getElementById("who");
  say(who, whoAmI() || "Who are you?");
  who.setAttribute("aria-label", whoAmI() ? `You are ${whoAmI()}. Change` : "Who are you?");
}

/** Shows in it who asks, now and whenever that is somebody else, and lets it be skipped for `main`. */
export function startBar(main) {
  document.getElementById("who").addEventListener("click", () => askWho());
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  happenings.addEventListener("identity", showWho);
  showWho();
}
