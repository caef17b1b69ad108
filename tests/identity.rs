//! The promise "who may do what is shown, not said": tokens of users, bearer tokens of everybody else, what browsers are
//! told, and what is refused before it starts.

mod harness;
#[path = "identity/keys.rs"]
mod keys;
#[path = "notifications/tokens.rs"]
mod tokens;

use std::process::Command;

use harness::{Answer, Client, OWNER, Process, Server, Setup, registration, run};
use keys::{Ec, RSA_PUBLIC, hs256, rs256, rsa_jwk, unsigned};
use rephase::app::{Access, Bearers, Browsers, Role, Tokens};
use reqwest::Method;
use serde_json::{Value, json};
use tokens::{SECRET, claims, claims_with, token};

const LEEWAY_MS: u64 = 30_000;

async fn server(tokens: Tokens) -> Server {
    let access = Access { tokens: Some(tokens), ..Access::default() };
    Server::start(Setup { access, ..Setup::default() }).await
}

/// A request of nobody, with this token.
async fn with_token(client: &Client, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
    let request = client.as_nobody().request(method, path).bearer_auth(token);
    Client::send(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

async fn register(client: &Client, token: &str, body: Value) -> Answer {
    with_token(client, Method::POST, "/v1/batches/register", token, Some(body)).await
}

fn anonymous() -> Value {
    let mut body = registration(1);
    body.as_object_mut().expect("an object").remove("user_id");
    body
}

/// Everything that is of users, with a method that it has.
const USER_ROUTES: [(&str, &str); 15] = [
    ("GET", "/v1/batches"),
    ("POST", "/v1/batches/register"),
    ("POST", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/essays"),
    ("GET", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/status"),
    ("PATCH", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/prompt"),
    ("POST", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/pipelines"),
    ("POST", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/retry-phase"),
    ("POST", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/cancel"),
    ("GET", "/v1/batches/0192f0c1-2345-7000-8000-000000000001/phases/nlp/attempts"),
    ("GET", "/v1/retry-jobs"),
    ("POST", "/v1/retry-jobs"),
    ("DELETE", "/v1/retry-jobs/0192f0c1-2345-7000-8000-000000000001"),
    ("POST", "/v1/content"),
    ("GET", "/v1/content/sha256-0"),
    ("GET", "/v1/notifications/stream"),
];

#[tokio::test]
async fn without_a_token_no_route_of_users_is_open() {
    let Server { app, client, .. } = &server(Tokens::new(SECRET.as_bytes())).await;
    for (method, path) in USER_ROUTES {
        let method: Method = method.parse().expect("a method");
        // A name is not enough.
        let named = Client::send(client.request(method.clone(), path).json(&json!({ "user_id": OWNER }))).await;
        assert_eq!((named.status, &named.json()["error_code"]), (401, &json!("AUTHENTICATION_ERROR")), "{path}");
        assert_eq!(named.header("www-authenticate"), r#"Bearer realm="rephase""#, "{path}");
        let bad = with_token(client, method, path, "nonsense", None).await;
        assert_eq!(bad.status, 401, "{path}");
        assert_eq!(bad.header("www-authenticate"), r#"Bearer realm="rephase", error="invalid_token""#, "{path}");
    }
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(client.as_nobody().get(path).await.status, 200, "{path}");
    }
    assert_eq!(app.engine().counters().steps.load(std::sync::atomic::Ordering::Relaxed), 0);
}

/// Makes a token of claims.
type Sign<'a> = &'a dyn Fn(&Value) -> String;

/// Tokens that are good but for one thing; `sign` makes the good ones.
fn bad_tokens(sign: Sign<'_>) -> Vec<(&'static str, String)> {
    let now_s = harness::START.0 / 1_000;
    let good = sign(&claims());
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let others = sign(&claims_with("sub", json!("eve")));
    let none = |name: &str| unsigned(&json!({ "alg": name }), &claims());
    vec![
        ("no signature", format!("{message}.")),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("other claims than were signed", format!("{}.{signature}", others.rsplit_once('.').expect("dots").0)),
        ("no algorithm", none("none")),
        ("no algorithm, in capitals", none("NONE")),
        ("an algorithm of nobody", none("HS257")),
        (
            "a secret's algorithm, signed with the public key",
            hs256(RSA_PUBLIC.as_bytes(), &json!({ "alg": "HS256" }), &claims()),
        ),
        ("the same, the key as a line", hs256(RSA_PUBLIC.trim().as_bytes(), &json!({ "alg": "HS256" }), &claims())),
        ("a secret's algorithm, signed with nothing", hs256(b"", &json!({ "alg": "HS256" }), &claims())),
        ("expired", sign(&claims_with("exp", json!(now_s - 30)))),
        ("not valid yet", sign(&claims_with("nbf", json!(now_s + 31)))),
        ("no end", sign(&claims_with("exp", Value::Null))),
        ("another audience", sign(&claims_with("aud", json!("another")))),
        ("no audience", sign(&claims_with("aud", Value::Null))),
        ("another issuer", sign(&claims_with("iss", json!("another")))),
        ("no issuer", sign(&claims_with("iss", Value::Null))),
        ("no user", sign(&claims_with("sub", Value::Null))),
        ("an empty user", sign(&claims_with("sub", json!(" ")))),
        ("an organisation that is no text", sign(&claims_with("org_id", json!(7)))),
        ("too long", sign(&claims_with("more", json!("x".repeat(9_000))))),
    ]
}

#[tokio::test]
async fn a_token_is_signed_with_the_key_and_its_own_algorithm() {
    let (ec, other) = (Ec::new(), Ec::new());
    let of_rsa = |claims: &Value| rs256(&json!({ "alg": "RS256", "kid": "any" }), claims);
    let of_ec = |claims: &Value| ec.es256(&json!({ "alg": "ES256" }), claims);
    let of_secret = |claims: &Value| hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), claims);
    let rsa = Tokens::from_public_key(RSA_PUBLIC.as_bytes()).expect("a key");
    let curve = Tokens::from_public_key(ec.public_pem().as_bytes()).expect("a key");
    let signers: [(&str, Tokens, Sign<'_>); 3] =
        [("RS256", rsa, &of_rsa), ("ES256", curve, &of_ec), ("HS256", Tokens::new(SECRET.as_bytes()), &of_secret)];
    for (name, tokens, sign) in signers {
        let Server { client, .. } = &server(tokens.with_leeway_ms(LEEWAY_MS)).await;
        let mut bad = bad_tokens(sign);
        bad.push(("another key", other.es256(&json!({ "alg": "ES256" }), &claims())));
        bad.push((
            "critical members",
            hs256(SECRET.as_bytes(), &json!({ "alg": "HS256", "crit": ["exp"] }), &claims()),
        ));
        for (other, token) in
            [("RS256", of_rsa(&claims())), ("ES256", of_ec(&claims())), ("HS256", of_secret(&claims()))]
        {
            if other != name {
                bad.push(("another algorithm", token));
            }
        }
        for (what, token) in &bad {
            let refused = register(client, token, anonymous()).await;
            assert_eq!(refused.status, 401, "{name}, {what}: {}", refused.text);
            assert!(refused.header("www-authenticate").contains("invalid_token"), "{name}, {what}");
            assert_eq!(with_token(client, Method::GET, "/v1/batches", token, None).await.status, 401, "{name}, {what}");
        }
        let now_s = harness::START.0 / 1_000;
        for (what, claims) in [
            ("good", claims()),
            ("just expired", claims_with("exp", json!(now_s - 29))),
            ("nearly valid", claims_with("nbf", json!(now_s + 30))),
        ] {
            let accepted = register(client, &sign(&claims), anonymous()).await;
            assert_eq!(accepted.status, 202, "{name}, {what}: {}", accepted.text);
        }
        let batches = with_token(client, Method::GET, "/v1/batches", &sign(&claims()), None).await.json();
        assert_eq!(batches["batches"].as_array().map(Vec::len), Some(3), "{name}: what was refused changed nothing");
    }
}

#[tokio::test]
async fn a_token_names_its_key_in_a_set() {
    let (first, second, hidden) = (Ec::new(), Ec::new(), Ec::new());
    let secret = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0" });
    let mut encryption = hidden.jwk("hidden");
    encryption["use"] = json!("enc");
    let unknown = json!({ "kty": "future", "kid": "unknown" });
    let set =
        json!({ "keys": [secret, encryption, unknown, first.jwk("first"), second.jwk("second"), rsa_jwk("rsa")] });
    let tokens = Tokens::from_key_set(set.to_string().as_bytes()).expect("a set");
    let Server { client, .. } = &server(tokens).await;
    let es = |id: Value| json!({ "alg": "ES256", "kid": id });
    let hs = |key: &[u8], id: &str| hs256(key, &json!({ "alg": "HS256", "kid": id }), &claims());
    for (what, token, status) in [
        ("the first", first.es256(&es(json!("first")), &claims()), 200),
        ("the second", second.es256(&es(json!("second")), &claims()), 200),
        ("one of another kind", rs256(&json!({ "alg": "RS256", "kid": "rsa" }), &claims()), 200),
        ("the only one of its kind, without a name", rs256(&json!({ "alg": "RS256" }), &claims()), 200),
        ("another's name", first.es256(&es(json!("second")), &claims()), 401),
        ("an unknown name", first.es256(&es(json!("third")), &claims()), 401),
        ("no name, of two", first.es256(&json!({ "alg": "ES256" }), &claims()), 401),
        ("a key for other things", hidden.es256(&es(json!("hidden")), &claims()), 401),
        ("a secret in the set", hs(b"secret secret secret secret", "secret"), 401),
        ("a name of another kind", hs(RSA_PUBLIC.as_bytes(), "rsa"), 401),
    ] {
        let answer = with_token(client, Method::GET, "/v1/batches", &token, None).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
    }
    for (what, set) in [
        ("nothing", ""),
        ("another thing", "[]"),
        ("an empty set", r#"{"keys": []}"#),
        ("a set of secrets", r#"{"keys": [{"kty": "oct", "k": "YWJj"}]}"#),
        ("a short key", r#"{"keys": [{"kty": "RSA", "n": "YWJj", "e": "AQAB"}]}"#),
    ] {
        assert!(Tokens::from_key_set(set.as_bytes()).is_err(), "{what}");
    }
    for pem in ["", "-----BEGIN PUBLIC KEY-----\nYWJj\n-----END PUBLIC KEY-----\n"] {
        assert!(Tokens::from_public_key(pem.as_bytes()).is_err(), "{pem}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_named() {
    let (first, second) = (Ec::new(), Ec::new());
    let set = json!({ "keys": [first.jwk("first"), second.jwk("second"), rsa_jwk("rsa")] });
    let of_set = server(Tokens::from_key_set(set.to_string().as_bytes()).expect("a set")).await;
    let of_secret = server(Tokens::new(SECRET.as_bytes())).await;
    let with = |name: &str, value: Value| token(&claims_with(name, value));
    let head = |head: Value| hs256(SECRET.as_bytes(), &head, &claims());
    for (server, token, said) in [
        (&of_secret, with("exp", Value::Null), "the token has no exp"),
        (&of_secret, with("sub", Value::Null), "the token has no sub"),
        (&of_secret, with("aud", Value::Null), "the token has no aud"),
        (&of_secret, with("iss", Value::Null), "the token has no iss"),
        (&of_secret, with("exp", json!("tomorrow")), "exp of the token is no time"),
        (&of_secret, with("exp", json!(1e300)), "exp of the token is no time"),
        (&of_secret, with("nbf", json!(true)), "nbf of the token is no time"),
        (&of_secret, with("sub", json!(7)), "sub of the token is no text"),
        (&of_secret, with("sub", json!(" ")), "sub of the token must have at least 1 character"),
        (&of_secret, with("org_id", json!([])), "org_id of the token is no text"),
        (&of_secret, with("aud", json!("another")), "aud is not huleedu-platform"),
        (&of_secret, with("iss", json!("another")), "iss is not huleedu-identity-service"),
        (&of_secret, unsigned(&json!({ "alg": "none" }), &claims()), "not signed with HS256, RS256 or ES256"),
        (&of_secret, head(json!({ "typ": "JWT" })), "does not say how it is signed (alg)"),
        (&of_secret, "nonsense".to_owned(), "this is no JSON web token"),
        (&of_secret, rs256(&json!({ "alg": "RS256" }), &claims()), "signed with RS256, and no key here is for that"),
        (&of_set, first.es256(&json!({ "alg": "ES256" }), &claims()), "names no key (kid), and here are several"),
        (&of_set, first.es256(&json!({ "alg": "ES256", "kid": "x" }), &claims()), "no key here has the name (kid)"),
    ] {
        let refused = with_token(&server.client, Method::GET, "/v1/batches", &token, None).await;
        let error = refused.json()["error"].as_str().expect("an error").to_owned();
        assert!(refused.status == 401 && error.contains(said), "{said}: {}", refused.text);
    }
}

#[tokio::test]
async fn nobody_speaks_for_somebody_else() {
    let Server { client, .. } = &server(Tokens::new(SECRET.as_bytes())).await;
    let mine = hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims());
    let hers = hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims_with("sub", json!("eve")));
    let free = hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &claims_with("org_id", Value::Null));
    let other = |name: &str, value: &str| {
        let mut body = anonymous();
        body[name] = value.into();
        body
    };
    for (what, token, body, status) in [
        ("another's name", &mine, other("user_id", "eve"), 403),
        ("the own name", &mine, other("user_id", OWNER), 202),
        ("another organisation", &mine, other("org_id", "school-2"), 403),
        ("the own organisation", &mine, other("org_id", " school-1 "), 202),
        ("an organisation of somebody who has none", &free, other("org_id", "school-1"), 403),
    ] {
        let answer = register(client, token, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text);
    }
    for (header, value, status) in [
        ("X-User-ID", "eve", 403),
        ("X-User-ID", OWNER, 200),
        ("X-Org-ID", "school-2", 403),
        ("X-Org-ID", "school-1", 200),
    ] {
        let request = client.as_nobody().request(Method::GET, "/v1/batches").bearer_auth(&mine).header(header, value);
        assert_eq!(Client::send(request).await.status, status, "{header}: {value}");
    }

    let batch = register(client, &mine, anonymous()).await.json()["batch_id"].as_str().expect("an id").to_owned();
    let path = |rest: &str| format!("/v1/batches/{batch}/{rest}");
    for (method, path, body) in [
        (Method::GET, path("status"), None),
        (Method::GET, path("status?wait_ms=30000"), None),
        (Method::GET, path("phases/nlp/attempts"), None),
        (Method::POST, path("essays"), Some(harness::essays_body(1))),
        (Method::POST, path("cancel"), Some(json!({}))),
        (Method::POST, path("retry-phase"), Some(json!({ "phase_name": "nlp" }))),
    ] {
        let refused = with_token(client, method, &path, &hers, body).await;
        assert_eq!((refused.status, &refused.json()["error_code"]), (403, &json!("AUTHORIZATION_ERROR")), "{path}");
    }
    let status = with_token(client, Method::GET, &path("status"), &mine, None).await;
    assert_eq!((status.status, &status.json()["batch_context"]["user_id"]), (200, &json!(OWNER)));
    assert_eq!(with_token(client, Method::GET, &path("phases/nlp/attempts"), &mine, None).await.status, 200);
    let none = path("status").replace(&batch, "0192f0c1-2345-7000-8000-000000000001");
    assert_eq!(with_token(client, Method::GET, &none, &mine, None).await.status, 404);
    let empty = with_token(client, Method::GET, "/v1/batches", &hers, None).await.json();
    assert_eq!(empty["batches"], json!([]));
}

/// A route of each audience; and one whose method is another, which only those learn who may use it.
const ROLE_ROUTES: [(Role, &str, &str, u16); 7] = [
    (Role::Operator, "DELETE", "/internal/v1/backup", 405),
    (Role::Operator, "GET", "/internal/v1/dead-letters", 200),
    (Role::Operator, "GET", "/internal/v1/backup", 200),
    (Role::Operator, "POST", "/internal/v1/pipelines/define", 400),
    (Role::Worker, "POST", "/v1/workers/lease", 400),
    (Role::Events, "GET", "/v1/events/groups", 200),
    (Role::Events, "POST", "/v1/events", 400),
];

fn token_of(role: Role) -> String {
    format!("token-of-{}-0123456789", role.name())
}

async fn ask(client: &Client, method: &str, path: &str, token: Option<&str>) -> Answer {
    let request = client.as_nobody().request(method.parse().expect("a method"), path);
    let request = if method == "POST" { request.json(&json!({ "nothing": 1 })) } else { request };
    Client::send(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

#[tokio::test]
async fn each_audience_has_a_token_and_the_operator_all() {
    let bearers = Role::ALL.into_iter().fold(Bearers::default(), |all, role| all.with(role, token_of(role).as_bytes()));
    let access = Access { bearers, ..Access::default() };
    let Server { client, .. } = &Server::start(Setup { access, ..Setup::default() }).await;
    for (audience, method, path, status) in ROLE_ROUTES {
        let refused = ask(client, method, path, None).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, r#"Bearer realm="rephase""#), "{path}");
        for role in Role::ALL {
            let is_admitted = role == audience || role == Role::Operator;
            let answer = ask(client, method, path, Some(&token_of(role))).await;
            let wanted = if is_admitted { status } else { 401 };
            assert_eq!(answer.status, wanted, "{path} for {role:?}: {}", answer.text);
        }
        let token = token_of(audience);
        for wrong in ["", "x", &token[1..], &format!("{token}x"), &token.to_uppercase()] {
            assert_eq!(ask(client, method, path, Some(wrong)).await.status, 401, "{path}: {wrong}");
        }
    }
    // Users are asked for nothing of this.
    assert_eq!(client.get("/v1/batches").await.status, 200);
    assert_eq!(client.as_nobody().get("/readyz").await.status, 200);
}

#[tokio::test]
async fn what_has_no_token_is_open_or_closed_as_a_whole() {
    let worker = || Bearers::default().with(Role::Worker, token_of(Role::Worker).as_bytes());
    let operator = || Bearers::default().with(Role::Operator, token_of(Role::Operator).as_bytes());
    for (what, bearers, status) in [
        ("nothing is said", Bearers::default(), [200, 400, 200]),
        ("nothing is said, and others reach it", Bearers::default().closed(), [403, 403, 403]),
        ("workers have one", worker(), [200, 401, 200]),
        ("workers have one, and others reach it", worker().closed(), [403, 401, 403]),
        ("the operator has one", operator(), [401, 401, 401]),
    ] {
        let access = Access { bearers, ..Access::default() };
        let Server { client, .. } = &Server::start(Setup { access, ..Setup::default() }).await;
        let routes =
            [("GET", "/internal/v1/dead-letters"), ("POST", "/v1/workers/lease"), ("GET", "/v1/events/groups")];
        for ((method, path), status) in routes.into_iter().zip(status) {
            let answer = ask(client, method, path, None).await;
            assert_eq!(answer.status, status, "{what}, {path}: {}", answer.text);
        }
        assert_eq!(client.get("/v1/batches").await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn browsers_are_told_what_they_may_do() {
    let browsers = Browsers::of(["https://school.example"]).expect("an origin");
    let access = Access { browsers, ..Access::default() };
    let Server { app, client, .. } = &Server::start(Setup { access, ..Setup::default() }).await;
    for (path, status) in [("/healthz", 200), ("/v1/batches", 200), ("/v1/batches?limit=x", 400), ("/nothing", 404)] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, status);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
    }
    // What never changes may be kept.
    let stored = client.post("/v1/content", json!({ "text": "An essay." })).await.json();
    let content = client.get(&format!("/v1/content/{}", stored["storage_id"].as_str().expect("an id"))).await;
    assert!(content.header("cache-control").contains("immutable"));

    let from = |origin: &str, method: Method, path: &str| client.request(method, path).header("Origin", origin);
    let preflight = from("https://school.example", Method::OPTIONS, "/v1/batches/register");
    let preflight = Client::send(preflight.header("Access-Control-Request-Method", "POST")).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, "https://school.example"));
    assert!(preflight.header("access-control-allow-headers").contains("idempotency-key"));
    let stranger = from("https://eve.example", Method::OPTIONS, "/v1/batches/register");
    let stranger = Client::send(stranger.header("Access-Control-Request-Method", "POST")).await;
    assert_eq!(stranger.header("access-control-allow-origin"), "");
    let allowed = Client::send(from("https://school.example", Method::GET, "/v1/batches")).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, "https://school.example"));
    assert!(allowed.header("access-control-expose-headers").contains("etag"));

    // What another page makes a browser send has no effect; a link to the server is none of it.
    for (site, origin, method, status) in [
        ("cross-site", Some("https://eve.example"), Method::POST, 403),
        ("same-site", Some("https://eve.example"), Method::POST, 403),
        ("cross-site", None, Method::POST, 403),
        ("cross-site", Some("https://eve.example"), Method::GET, 403),
        ("cross-site", None, Method::GET, 200),
        ("cross-site", Some("https://school.example"), Method::POST, 202),
        ("same-origin", Some("http://127.0.0.1"), Method::POST, 202),
        ("none", None, Method::GET, 200),
    ] {
        let path = if method == Method::GET { "/v1/batches" } else { "/v1/batches/register" };
        let request = client.request(method.clone(), path).header("Sec-Fetch-Site", site);
        let request = if method == Method::POST { request.json(&registration(1)) } else { request };
        let request = if let Some(origin) = origin { request.header("Origin", origin) } else { request };
        let answer = Client::send(request).await;
        assert_eq!(answer.status, status, "{site} {origin:?} {method}: {}", answer.text);
    }
    // The same where a browser does not say which site: then the origin does, with the name that was asked for.
    let own = app.url();
    let behind_a_proxy = own.replace("http:", "https:");
    for (origin, method, status) in [
        ("https://eve.example", Method::POST, 403),
        ("http://127.0.0.1:1", Method::POST, 403),
        ("null", Method::POST, 403),
        ("https://eve.example", Method::GET, 403),
        ("https://school.example", Method::POST, 202),
        (&own, Method::POST, 202),
        (&behind_a_proxy, Method::POST, 202),
    ] {
        let path = if method == Method::GET { "/v1/batches" } else { "/v1/batches/register" };
        let request =
            client.request(method.clone(), path).header("Origin", origin).header("Content-Type", "text/plain");
        let request = if method == Method::POST { request.body(registration(1).to_string()) } else { request };
        let answer = Client::send(request).await;
        assert_eq!(answer.status, status, "{origin} {method}: {}", answer.text);
        assert!(status != 403 || answer.json()["error_code"] == "AUTHORIZATION_ERROR", "{}", answer.text);
    }
    let socket = |origin: &str| {
        let request = client.request(Method::GET, "/ws").header("Connection", "upgrade").header("Upgrade", "websocket");
        let request =
            request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        Client::send(request.header("Origin", origin))
    };
    assert_eq!((socket("http://eve.example").await.status, socket(&own).await.status), (403, 101));
    for origin in ["*", "school.example", "https://", "https://school.example/", "https://School.example", "null"] {
        assert!(Browsers::of([origin]).is_err(), "{origin}");
    }
}

#[tokio::test]
async fn nobody_else_can_be_named_beside_a_token() {
    let Server { client, .. } = &server(Tokens::new(SECRET.as_bytes())).await;
    let good = token(&claims());
    let body = |mut body: Value, named: &str| {
        body["user_id"] = named.into();
        Some(body)
    };
    let batch = register(client, &good, anonymous()).await.json()["batch_id"].as_str().expect("an id").to_owned();
    let prompt = json!({ "student_prompt_ref": { "references": { "student_prompt_text": { "storage_id": "p" } } } });
    for (method, path, said, status) in [
        (Method::PATCH, format!("/v1/batches/{batch}/prompt"), prompt, 200),
        (Method::POST, "/v1/content".to_owned(), json!({ "text": "An essay." }), 201),
    ] {
        let eve = with_token(client, method.clone(), &path, &good, body(said.clone(), "eve")).await;
        assert_eq!((eve.status, &eve.json()["error_code"]), (403, &json!("AUTHORIZATION_ERROR")), "{path}");
        assert_eq!(with_token(client, method.clone(), &path, &good, body(said.clone(), OWNER)).await.status, status);
        assert_eq!(with_token(client, method, &path, &good, Some(said)).await.status, status, "{path}");
    }
    for (named, status) in [("eve", 403), (OWNER, 200)] {
        let path = format!("/v1/notifications/stream?token={good}&user_id={named}");
        // A stream that is there does not end.
        let answer = client.as_nobody().request(Method::GET, &path).send().await.expect("it answers");
        assert_eq!(answer.status(), status, "{named}");
    }
}

/// Nobody builds the image here: what can be told without is.
#[test]
fn the_image_is_built_of_what_is_there() {
    let (recipe, ignored) = (include_str!("../data/Containerfile"), include_str!("../.dockerignore"));
    let lines = recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
    let copied: Vec<_> = lines.flat_map(|line| line.rsplit_once(' ').expect("a target").0.split(' ')).collect();
    let mut let_through: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(copied.len() > 3 && ignored.lines().any(|line| line == "*"), "{copied:?}");
    for source in &copied {
        assert!(let_through.contains(source), "{source} is not in the context");
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(source).exists(), "{source}");
    }
    let_through.retain(|name| !copied.contains(name));
    assert_eq!(let_through, [""; 0], "nothing else is sent");
    // The allocator needs it, and the image of the compiler lacks it.
    let (installed, compiled) = (recipe.find("--no-install-recommends make"), recipe.find("cargo build"));
    assert!(installed.is_some() && installed < compiled);
    let (manifest, version) = (include_str!("../Cargo.toml"), recipe.split("FROM rust:").nth(1).expect("an image"));
    let version = version.split('-').next().expect("a version");
    assert!(manifest.contains(&format!("rust-version = \"{version}\"")), "{version}");
}

/// The variables that the comments of the container's file give it, and the arguments that it is started with.
#[test]
fn the_container_starts_as_its_file_says() {
    let text = include_str!("../data/Containerfile");
    let command = text.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let arguments: Vec<String> = serde_json::from_str(command).expect("a list");
    let (serve, arguments) = arguments.split_first().expect("a command");
    assert_eq!(serve, "serve");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let directory = tempfile::tempdir().expect("a directory");
    let keys = directory.path().join("jwks.json");
    std::fs::write(&keys, json!({ "keys": [rsa_jwk("a")] }).to_string()).expect("written");
    for (variables, code) in [
        (
            vec![("REPHASE_JWKS_FILE", keys.to_str().expect("UTF-8")), ("REPHASE_ADMIN_TOKEN", "a-token-that-is-long")],
            0,
        ),
        (vec![("REPHASE_ANYBODY_MAY_SAY_WHO_THEY_ARE", "true"), ("REPHASE_HOST", "localhost")], 0),
        (vec![], 2),
    ] {
        let mut command = config(&arguments);
        command.envs(variables.iter().copied());
        let (got, _, errors) = run(command);
        assert_eq!(got, code, "{variables:?}: {errors}");
        for (variable, _) in variables {
            assert!(text.contains(&format!("-e {variable}")), "{variable}");
        }
    }
    let check = text.lines().find(|line| line.starts_with("HEALTHCHECK")).expect("a health check");
    assert!(check.contains(r#"CMD ["/usr/local/bin/rephase", "health""#), "{check}");
}

#[tokio::test]
async fn on_loopback_no_page_asks_by_a_name_of_its_own() {
    let called = |client: &Client, host: String, path: &str| {
        Client::send(client.request(Method::GET, path).header("Host", host))
    };
    // Everything that is open to whoever reaches it, and what is harmless.
    let open =
        ["/v1/batches", "/internal/v1/backup", "/v1/events/groups", "/metrics", "/v1/notifications/stream", "/ws"];
    let browsers = Browsers::default().with_hosts(["rephase.example"]).expect("a name");
    let access = Access { browsers, ..Access::default() };
    let Server { app, client, .. } = &Server::start(Setup { access, ..Setup::default() }).await;
    let port = app.address().port();
    for name in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", ""] {
        for path in open {
            let refused = called(client, format!("{name}:{port}"), path).await;
            assert_eq!(
                (refused.status, &refused.json()["error_code"]),
                (403, &json!("AUTHORIZATION_ERROR")),
                "{name} {path}"
            );
            assert!(refused.json()["error"].as_str().expect("a text").contains("--host"), "{}", refused.text);
        }
        assert_eq!(called(client, name.to_owned(), "/livez").await.status, 200);
    }
    for name in ["localhost", "LocalHost", "127.0.0.1", "127.0.0.2", "[::1]", "rephase.example", "Rephase.Example"] {
        for host in [name.to_owned(), format!("{name}:{port}"), format!("{name}:1")] {
            assert_eq!(called(client, host, "/internal/v1/credits").await.status, 200, "{name}");
        }
    }
    // Where a token is asked for, it says more than a name.
    let bearers =
        Role::ALL.into_iter().fold(Bearers::default(), |bearers, role| bearers.with(role, b"a-token-that-is-long"));
    let access = Access { tokens: Some(Tokens::new(SECRET.as_bytes())), bearers, ..Access::default() };
    let Server { client, .. } = &Server::start(Setup { access, ..Setup::default() }).await;
    for (path, token) in
        [("/v1/batches", token(&claims())), ("/internal/v1/credits", "a-token-that-is-long".to_owned())]
    {
        let request = client.as_nobody().request(Method::GET, path).header("Host", "proxy.example");
        assert_eq!(Client::send(request.bearer_auth(token)).await.status, 200, "{path}");
    }
    for name in ["https://a.example", "a.example:80", "a/b", "", "[::1", "*"] {
        assert!(Browsers::default().with_hosts([name]).is_err(), "{name}");
    }
}

/// Says whether a server would start so, which needs no address.
fn config(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
    command.arg("config").args(arguments);
    command
}

#[test]
fn whoever_others_reach_has_to_ask_who_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (secret, key) = (file("secret", SECRET), file("key", RSA_PUBLIC));
    let (set, short) = (file("set", &json!({ "keys": [rsa_jwk("1")] }).to_string()), file("short", "0123456789"));
    let token = file("token", "0123456789abcdef\n");
    let anywhere = ["--listen", "0.0.0.0:0"];
    for (arguments, said) in [
        (vec![], "--anybody-may-say-who-they-are"),
        (vec!["--auth", "dev"], "--anybody-may-say-who-they-are"),
        (vec!["--admin-token-file", &token], "--anybody-may-say-who-they-are"),
        (vec!["--auth", "jwt"], "--jwks-file"),
        (vec!["--auth", "dev", "--jwt-secret-file", &secret], "--auth jwt"),
        (vec!["--jwt-secret-file", &secret, "--jwks-file", &set], "only one"),
        (vec!["--jwt-public-key-file", &secret], "PUBLIC KEY"),
        (vec!["--jwks-file", &key], "key set"),
        (vec!["--anybody-may-say-who-they-are", "--admin-token-file", &short], "not fit"),
        (vec!["--anybody-may-say-who-they-are", "--cors-origin", "*"], "no origin"),
        (vec!["--anybody-may-say-who-they-are", "--tls-cert", &key], "--tls-key"),
    ] {
        let (code, _, errors) = run(config(&[&anywhere[..], &arguments].concat()));
        assert!(code == 2 && errors.contains(said), "{arguments:?}: {errors}");
    }
    for arguments in [
        vec!["--anybody-may-say-who-they-are"],
        vec!["--jwt-secret-file", &secret],
        vec!["--auth", "jwt", "--jwt-public-key-file", &key, "--admin-token-file", &token],
        vec!["--jwks-file", &set],
        vec!["--listen", "127.0.0.1:0"],
        vec!["--listen", "[::1]:0"],
        vec!["--listen", "[::ffff:127.0.0.1]:0"],
    ] {
        let anywhere = if arguments[0] == "--listen" { &[][..] } else { &anywhere };
        let (code, _, errors) = run(config(&[anywhere, &arguments].concat()));
        assert_eq!((code, errors.contains("--anybody")), (0, false), "{arguments:?}: {errors}");
    }
    // What is closed by that is said, as far as it is.
    let asked = ["--listen", "0.0.0.0:0", "--jwt-secret-file", &secret, "--log", "warn"];
    let (_, _, errors) = run(config(&asked));
    assert!(errors.contains("nobody can use /internal, /v1/workers, /v1/events, /metrics (403)"), "{errors}");
    let (_, _, errors) = run(config(&[&asked[..], &["--worker-token-file", &token]].concat()));
    assert!(errors.contains("nobody can use /internal, /v1/events, /metrics (403)"), "{errors}");
    for more in [["--admin-token-file", &token], ["--listen", "127.0.0.1:0"]] {
        let start = if more[0] == "--listen" { 2 } else { 0 };
        let (_, _, errors) = run(config(&[&asked[start..], &more].concat()));
        assert!(!errors.contains("nobody can use"), "{errors}");
    }
    let mut twice = config(&["--jwt-secret-file", &secret]);
    twice.env("REPHASE_JWT_SECRET", SECRET);
    let (code, _, errors) = run(twice);
    assert!(code == 2 && errors.contains("give one") && !errors.contains(SECRET), "{errors}");
}

#[tokio::test]
async fn no_secret_is_in_what_the_program_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let admin = token_of(Role::Operator);
    let mut command = Process::command(&["--ephemeral", "--auth", "jwt", "--test-api"]);
    command.env("REPHASE_JWT_SECRET", SECRET).env("REPHASE_ADMIN_TOKEN", &admin).env("RUST_LOG", "trace");
    command.stderr(std::fs::File::create(&path).expect("a file"));
    let process = Process::spawn(command).expect("it serves");
    let client = &process.client;
    let far = claims_with("exp", json!(4_000_000_000_u64));
    let good = hs256(SECRET.as_bytes(), &json!({ "alg": "HS256" }), &far);
    let bad = hs256(b"another secret", &json!({ "alg": "HS256" }), &far);
    assert_eq!(register(client, &good, anonymous()).await.status, 202);
    assert_eq!(register(client, &bad, anonymous()).await.status, 401);
    assert_eq!(
        with_token(client, Method::GET, &format!("/v1/notifications/stream?token={bad}"), &bad, None).await.status,
        401
    );
    for (token, status) in [(Some(admin.as_str()), 200), (Some("an attempt"), 401), (None, 401)] {
        assert_eq!(ask(client, "GET", "/internal/v1/dead-letters", token).await.status, status);
        assert_eq!(ask(client, "GET", "/_test/clock", token).await.status, status);
    }
    process.signal("TERM");
    assert!(process.wait().success());
    let log = std::fs::read_to_string(&path).expect("text");
    assert!(log.contains("serving"), "{log}");
    for secret in [SECRET, &admin, &good, &bad, "an attempt"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    let tokens = Tokens::new(SECRET.as_bytes());
    let access = Access {
        tokens: Some(tokens),
        bearers: Bearers::default().with(Role::Operator, admin.as_bytes()),
        ..Access::default()
    };
    assert!(!format!("{access:?}").contains(&SECRET[..8]) && !format!("{access:?}").contains(&admin));

    let mut shown = config(&["--json"]);
    shown.env("REPHASE_JWT_SECRET", SECRET).env("REPHASE_ADMIN_TOKEN", &admin);
    let (code, output, errors) = run(shown);
    assert_eq!(code, 0, "{errors}");
    assert!(!output.contains(SECRET) && !output.contains(&admin) && output.contains("REPHASE_ADMIN_TOKEN"), "{output}");
}
