// Who asks. The user's name stays in this browser; tokens are kept for as long as the tab is open.

import { announce, field, h } from "./dom.js";
import { tell } from "./api.js";
import { open } from "./dialog.js";

const USER = "rephase.user";
const TOKEN = "rephase.token";
const OPERATOR = "rephase.operator-token";

/** The storage may be forbidden; then it is asked for anew each time. */
function kept(storage, key, value) {
  try {
    if (value === undefined) return storage().getItem(key) ?? "";
    if (value) storage().setItem(key, value);
    else storage().removeItem(key);
  } catch {
    // Nothing is kept.
  }
  return value ?? "";
}

const local = () => window.localStorage;
const session = () => window.sessionStorage;

const me = { user: kept(local, USER), token: kept(session, TOKEN), operator: kept(session, OPERATOR) };

/** Whom a token names; nothing where it cannot be read. The server is who checks it. */
function subject(token) {
  try {
    const bytes = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
    return typeof claims.sub === "string" ? claims.sub : "";
  } catch {
    return "";
  }
}

const isOperators = (path) => path.startsWith("internal/");

/** What a request to `path` is sent with. */
export function credentials(path) {
  const user = (me.token && subject(me.token)) || me.user;
  return { user, token: (isOperators(path) && me.operator) || me.token };
}

/** Who asks, in one word; empty where nobody has said. */
export const whoAmI = () => credentials("").user;

/** Asks who somebody is. `because` is what the server said to a request to `path`. */
export function askWho({ because, path = "" } = {}) {
  const user = h("input", { name: "user", autocomplete: "username", value: me.user, spellcheck: "false", maxlength: 255 });
  const secret = (name, value) =>
    h("input", { name, type: "password", autocomplete: "off", spellcheck: "false", value });
  const token = secret("token", me.token);
  const operator = secret("operator", me.operator);
  const hint = (text) => h("p", { class: "hint" }, text);
  const submit = (close) => {
    const before = whoAmI();
    Object.assign(me, { user: user.value.trim(), token: token.value.trim(), operator: operator.value.trim() });
    kept(local, USER, me.user);
    kept(session, TOKEN, me.token);
    kept(session, OPERATOR, me.operator);
    close();
    tell("identity", { isSame: before === whoAmI() });
    if (whoAmI()) announce(`You are ${whoAmI()}`);
  };
  open({
    title: "Who are you?",
    body: [
      because && h("p", { class: "note bad" }, because.message),
      field("User", user, hint("Sent as X-User-ID, and kept in this browser.")),
      field("Bearer token", token, hint("Where the server wants one: who it names is who you are. Kept until this tab is closed.")),
      field("Operator's token", operator, hint("For dead letters, where the server has a token of its own for internal routes.")),
    ],
    submit: { label: "Go on", run: submit },
    first: !because ? user : isOperators(path) ? operator : me.user ? token : user,
  });
}
