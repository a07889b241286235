//! What web pages of other origins may do (the Fetch standard, "CORS protocol"): nothing, unless the operator names them.

use super::message::{Headers, HttpResponse, Limits};
use super::problem::{problem, quoted};
use super::target::Route;

/// Fields of answers that a page may read beside the usual ones.
const EXPOSED: &str = "ETag, X-Chord-Expires-In, X-Chord-Stale-Age, Retry-After";
/// Fields of requests that a page may send.
const ALLOWED: &str = "Authorization, Content-Type, If-Match, If-None-Match";
/// How long a browser remembers.
const MAX_AGE_S: u32 = 600;
/// Stands for every origin.
const ANY: &str = "*";

/// The origin of the page that asks, if the operator has named it.
pub(super) fn allowed<'a>(headers: Headers<'a>, limits: &Limits) -> Option<&'a str> {
    headers.all("origin").find(|origin| is_named(&limits.origins, origin))
}

/// Whether the operator has named this origin, or all.
pub fn is_named(origins: &[String], origin: &str) -> bool {
    origins.iter().any(|known| known == ANY || known == origin)
}

/// What the answer to a page must say so that it may read it.
pub(super) fn shown_to(response: HttpResponse, origin: Option<&str>) -> HttpResponse {
    match origin {
        None => response,
        Some(origin) => response
            .with("Access-Control-Allow-Origin", origin)
            .with("Access-Control-Expose-Headers", EXPOSED)
            .with("Vary", "Origin"),
    }
}

/// The answer to a browser that asks beforehand what a page may do there.
pub(super) fn preflight(route: Route<'_>) -> HttpResponse {
    HttpResponse::empty(204)
        .with("Access-Control-Allow-Methods", route.methods().join(", "))
        .with("Access-Control-Allow-Headers", ALLOWED)
        .with("Access-Control-Max-Age", MAX_AGE_S.to_string())
}

/// A web page of another origin may make a browser send writes to a node on the same host. Browsers then name the origin;
/// programs do not.
pub(super) fn refuse_foreign_page(headers: Headers<'_>) -> Result<(), HttpResponse> {
    let host = headers.all("host").next().unwrap_or_default();
    let foreign = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    match headers.all("origin").find(|origin| foreign(origin)) {
        None => Ok(()),
        Some(origin) => {
            let detail = format!(
                "a web page of {} may not write here, unless the node names it in --cors-origin",
                quoted(origin)
            );
            Err(problem(403, "foreign_origin", &detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HttpRequest, parse};
    use super::*;
    use crate::base::Wall;
    use crate::data::{Outcome, UserReply};

    fn ask(method: &str, origin: &str, origins: &[&str]) -> Result<HttpResponse, HttpResponse> {
        let headers = [("host", "h:8000"), ("origin", origin)];
        let request = HttpRequest {
            method: method.to_owned(),
            target: "/v1/kv/a".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: b"v".to_vec(),
        };
        let limits =
            Limits { value_bytes_max: 100, origins: origins.iter().map(|origin| (*origin).to_owned()).collect() };
        parse(request, &limits).map(|asked| asked.shape.render(UserReply::Kv(Outcome::NotFound), Wall(0)))
    }

    #[test]
    fn a_page_that_was_named_may_ask_and_read_the_answer() {
        const PAGE: &str = "https://app.example.org";
        for origins in [&[PAGE][..], &["*"], &["http://other", PAGE]] {
            let asked = ask("OPTIONS", PAGE, origins).unwrap_err();
            assert_eq!((asked.status, asked.header("Access-Control-Allow-Origin")), (204, Some(PAGE)));
            assert_eq!(asked.header("Access-Control-Allow-Methods"), Some("GET, HEAD, PUT, DELETE"));
            assert!(asked.header("Access-Control-Allow-Headers").unwrap().contains("Authorization"));
            for method in ["PUT", "GET", "DELETE"] {
                let answer = ask(method, PAGE, origins).unwrap();
                assert_eq!(answer.header("Access-Control-Allow-Origin"), Some(PAGE), "{method}");
                assert_eq!(answer.header("Vary"), Some("Origin"));
            }
            // Refusals, too, or the page could not tell what is wrong.
            let wrong = ask("POST", PAGE, origins).unwrap_err();
            assert_eq!((wrong.status, wrong.header("Access-Control-Allow-Origin")), (405, Some(PAGE)));
        }
    }

    #[test]
    fn other_pages_may_nothing() {
        for origins in [&[][..], &["https://app.example.org"]] {
            for origin in
                ["https://evil.example", "null", "https://app.example.org.evil.example", "https://app.example.or"]
            {
                assert_eq!(ask("PUT", origin, origins).unwrap_err().status, 403, "{origin}");
                assert_eq!(ask("OPTIONS", origin, origins).unwrap_err().status, 405, "{origin}");
                let read = ask("GET", origin, origins).unwrap();
                assert_eq!(read.header("Access-Control-Allow-Origin"), None, "{origin}");
            }
        }
        // The node's own pages are not foreign.
        assert!(ask("PUT", "http://h:8000", &[]).is_ok());
    }
}
