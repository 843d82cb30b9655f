//! Who may ask: hosts, origins and tokens; and the headers that keep a page from being misused.

use super::refusal::Refusal;
use crate::page;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use std::fmt::Write;
use std::net::SocketAddr;

/// The cookie that holds the token once the page has been opened with it.
const COOKIE: &str = "striate";

/// What is asked of every request.
pub(super) struct Guard {
    /// Needed, if there is one.
    pub(super) token: Option<String>,
    /// `Host` must be one of these, if there are any: a name that an attacker points here is none of them.
    hosts: Option<Vec<String>>,
}

/// What a request with a token in its address is answered with.
pub(super) enum Verdict {
    Welcome,
    /// The token is put into a cookie, and out of the address.
    TakeCookie(String),
}

impl Guard {
    /// For a server at this address. Without a token on a loopback address, only that address's names are answered.
    pub(super) fn new(address: SocketAddr, token: Option<String>) -> Self {
        let hosts = address.ip().is_loopback().then(|| {
            let names = ["localhost".into(), "127.0.0.1".into(), "[::1]".into(), host_of(address)];
            names.into_iter().flat_map(|name| [format!("{name}:{}", address.port()), name]).collect()
        });
        Self { token, hosts }
    }

    pub(super) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Verdict, Refusal> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let host = text(header::HOST.as_str()).unwrap_or_default().to_ascii_lowercase();
        if let Some(hosts) = &self.hosts
            && !hosts.contains(&host)
        {
            let reason =
                format!("the host {host:?} is not this server; use {}", hosts.first().map_or("", String::as_str));
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, reason));
        }
        let foreign =
            || Refusal::new(StatusCode::FORBIDDEN, "a page of another site asked; only this server's own page may");
        if let Some(origin) = text(header::ORIGIN.as_str())
            && origin.strip_prefix("http://").or(origin.strip_prefix("https://")) != Some(&host)
        {
            return Err(foreign());
        }
        // Following a link here is fine; anything else from another site is not.
        let safe = method == Method::GET || method == Method::HEAD;
        if matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"))
            && !(safe && text("sec-fetch-mode") == Some("navigate"))
        {
            return Err(foreign());
        }
        let Some(token) = &self.token else { return Ok(Verdict::Welcome) };
        // Whoever watches a server for its health holds no secrets.
        if uri.path() == "/healthz" {
            return Ok(Verdict::Welcome);
        }
        let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
        let cookies = text(header::COOKIE.as_str()).unwrap_or_default();
        let cookie = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        if [bearer, cookie].into_iter().flatten().any(|given| same(given, token)) {
            return Ok(Verdict::Welcome);
        }
        let query = uri.query().unwrap_or_default();
        let given = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        match given {
            Some(given) if safe && same(given, token) => {
                Ok(Verdict::TakeCookie(format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict")))
            }
            _ => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed: open the address that the server printed, or send Authorization: Bearer TOKEN",
            )),
        }
    }
}

/// As a browser writes it.
fn host_of(address: SocketAddr) -> String {
    if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() }
}

/// Whether both are the same, in a time that does not tell how far they agree.
fn same(given: &str, token: &str) -> bool {
    let differences = given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == token.len() && differences == 0
}

/// 128 bits that nobody can guess.
pub(super) fn new_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Adds the headers that every answer has.
pub(super) fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", page::SERVED),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
    ] {
        // A page that needs another policy has set its own.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(guard: &Guard, method: Method, uri: &'static str, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|&(name, value)| {
            map.insert(name, HeaderValue::from_static(value));
        });
        match guard.check(&method, &Uri::from_static(uri), &map) {
            Ok(Verdict::Welcome) => 200,
            Ok(Verdict::TakeCookie(_)) => 303,
            Err(refusal) => axum::response::IntoResponse::into_response(refusal).status().as_u16(),
        }
    }

    #[test]
    fn on_loopback_only_its_own_names_and_pages() {
        let guard = Guard::new("127.0.0.1:7878".parse().unwrap(), None);
        let post = |headers: &[(&'static str, &'static str)]| ask(&guard, Method::POST, "/predict", headers);
        assert_eq!(post(&[("host", "localhost:7878")]), 200);
        assert_eq!(post(&[("host", "127.0.0.1:7878"), ("origin", "http://127.0.0.1:7878")]), 200);
        assert_eq!(post(&[("host", "evil.example:7878")]), 421);
        assert_eq!(post(&[]), 421);
        assert_eq!(post(&[("host", "localhost:7878"), ("origin", "http://evil.example")]), 403);
        assert_eq!(post(&[("host", "localhost:7878"), ("origin", "null")]), 403);
        assert_eq!(post(&[("host", "localhost:7878"), ("sec-fetch-site", "cross-site")]), 403);
        let link = [("host", "localhost:7878"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert_eq!((ask(&guard, Method::GET, "/", &link), post(&link)), (200, 403));
    }

    #[test]
    fn elsewhere_a_token_opens() {
        let guard = Guard::new("0.0.0.0:7878".parse().unwrap(), Some("s3cret".into()));
        let get = |uri, headers: &[(&'static str, &'static str)]| ask(&guard, Method::GET, uri, headers);
        assert_eq!(get("/model", &[]), 401);
        assert_eq!(get("/healthz", &[]), 200);
        assert_eq!(get("/?token=s3cret", &[]), 303);
        assert_eq!(get("/?token=s3cre", &[]), 401);
        assert_eq!(ask(&guard, Method::POST, "/predict?token=s3cret", &[]), 401);
        assert_eq!(get("/model", &[("authorization", "Bearer s3cret")]), 200);
        assert_eq!(get("/model", &[("cookie", "a=b; striate=s3cret")]), 200);
        assert_eq!(get("/model", &[("cookie", "striate=s3creT")]), 401);
        assert_eq!(new_token().unwrap().len(), 32);
    }
}
