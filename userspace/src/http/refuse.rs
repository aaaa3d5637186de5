//! Refusals that an agent, and the person who reads its output, can act on.

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use serde::Serialize;

use super::body::Body;
use crate::outcome::{Reason, Stage};
use crate::policy::Host;

/// The header that tells egret's answers from the upstream's.
pub const X_EGRET: HeaderName = HeaderName::from_static("x-egret");

const PROBLEM: &str = "application/problem+json";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Everything a refusal says. Only facts that the agent has stated itself, and the policy's own
/// words; never a secret, never an address that egret resolved.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    pub reason: Reason,
    pub layer: Stage,
    pub host: Option<&'a Host>,
    pub port: u16,
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    pub rule: Option<&'a str>,
    /// The rule's own reason, or a detail; the reason's meaning where absent.
    pub message: Option<&'a str>,
}

/// Who reads a refusal. Only its form depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A gRPC client: by the type of its body.
    Grpc,
    /// git shows what a server says only when it is plain text.
    Git,
    /// OpenAI's SDKs show only an error's `message`.
    OpenAi,
    /// Who shows problem details (RFC 9457) and nothing else: uv, and whoever asks for them.
    Problem,
    Other,
}

impl Audience {
    /// Who sent a request with these headers.
    pub fn of(request: &HeaderMap) -> Self {
        let begins = |name, with: &[u8]| {
            request.get(name).is_some_and(|v: &HeaderValue| v.as_bytes().starts_with(with))
        };
        if is_grpc(request) {
            Self::Grpc
        } else if begins(USER_AGENT, b"git/") {
            Self::Git
        } else if begins(USER_AGENT, b"OpenAI/") {
            Self::OpenAi
        } else if begins(USER_AGENT, b"uv/") || asks_for(request, PROBLEM) {
            Self::Problem
        } else {
            Self::Other
        }
    }
}

/// Whether what these headers belong to has a gRPC body.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

/// Whether an `Accept` field lists this type.
fn asks_for(request: &HeaderMap, kind: &str) -> bool {
    let accepted = request.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut kinds = accepted.flat_map(|v| v.split(',')).map(|k| k.split(';').next().unwrap_or(""));
    kinds.any(|k| k.trim().eq_ignore_ascii_case(kind))
}

/// RFC 9457. Its `type` is what an absent one means: the status says it all.
#[derive(Serialize)]
struct Problem<'a> {
    title: String,
    status: u16,
    detail: &'a str,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(flatten)]
    problem: Option<Problem<'a>>,
    error: serde_json::Value,
    reason: &'static str,
    layer: &'static str,
    host: Option<String>,
    port: u16,
    method: &'a str,
    path: &'a str,
    rule: Option<&'a str>,
    message: &'a str,
    next_steps: Vec<String>,
}

/// A refusal in one line.
fn line(reason: Reason, message: &str) -> String {
    format!("egress denied ({reason}): {message}")
}

/// A refusal as gRPC tells it, at the end of a stream. `message`: the reason's meaning where absent.
pub fn grpc_trailers(reason: Reason, message: Option<&str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status(reason)));
    let line = line(reason, message.unwrap_or(reason.meaning())).replace('%', "%25");
    let encoded =
        percent_encoding::utf8_percent_encode(&line, percent_encoding::CONTROLS).to_string();
    if let Ok(message) = HeaderValue::from_str(&encoded) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

impl Refusal<'_> {
    /// The answer, as its audience shows it best.
    pub fn response(&self, audience: Audience, version: Version) -> Response<Body> {
        let mut response = match audience {
            Audience::Grpc => self.grpc(),
            Audience::Git => self.plain(),
            Audience::OpenAi => self.json(Some(self.line()), None),
            Audience::Problem => self.json(None, Some(self.problem())),
            Audience::Other => self.json(None, None),
        };
        // Many clients show nothing of a refusal but its first line.
        if let Ok(phrase) = ReasonPhrase::try_from(format!("Denied by egret ({})", self.reason)) {
            response.extensions_mut().insert(phrase);
        }
        let headers = response.headers_mut();
        let mark = format!("denied; reason={}", self.reason);
        if let Ok(mark) = HeaderValue::from_str(&mark) {
            headers.insert(X_EGRET, mark);
        }
        if self.reason == Reason::RequestLimit {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("60"));
        }
        if self.reason == Reason::MalformedRequest && version < Version::HTTP_2 {
            // Nothing that follows a head with two readings can be trusted.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn message(&self) -> &str {
        self.message.unwrap_or(self.reason.meaning())
    }

    fn line(&self) -> String {
        line(self.reason, self.message())
    }

    fn problem(&self) -> Problem<'_> {
        Problem {
            title: format!("egress denied ({})", self.reason),
            status: self.reason.http_status(),
            detail: self.message(),
        }
    }

    /// `line`: the error is an object that has it as its message. `problem`: its members are there too.
    fn json(&self, line: Option<String>, problem: Option<Problem<'_>>) -> Response<Body> {
        let kind = "egress_denied";
        let content_type = if problem.is_some() { PROBLEM } else { "application/json" };
        let text = Text {
            problem,
            error: match line {
                None => kind.into(),
                Some(line) => serde_json::json!({
                    "message": line, "type": kind, "code": self.reason.as_str(),
                }),
            },
            reason: self.reason.as_str(),
            layer: self.layer.as_str(),
            host: self.host.map(ToString::to_string),
            port: self.port,
            method: self.method.as_str(),
            path: self.path,
            rule: self.rule,
            message: self.message(),
            next_steps: self.next_steps(),
        };
        let mut bytes = serde_json::to_vec(&text).unwrap_or_default();
        bytes.push(b'\n');
        self.with_status(content_type, bytes)
    }

    /// What git prints behind `remote: `.
    fn plain(&self) -> Response<Body> {
        self.with_status("text/plain", format!("{}\n", self.line()).into_bytes())
    }

    fn with_status(&self, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
        let mut response = Response::new(Body::text(Bytes::from(bytes)));
        *response.status_mut() =
            StatusCode::from_u16(self.reason.http_status()).unwrap_or(StatusCode::FORBIDDEN);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// A "trailers-only" answer, as gRPC writes it: 200, and the status in a header.
    fn grpc(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.extend(grpc_trailers(self.reason, self.message));
        response
    }

    fn next_steps(&self) -> Vec<String> {
        let host = self.host.map_or_else(|| "the host".to_owned(), ToString::to_string);
        match self.reason {
            Reason::NoRule | Reason::NameNotAllowed => vec![
                format!(
                    "do not retry: the policy of this session does not allow {} {host}:{}{}",
                    self.method, self.port, self.path
                ),
                format!(
                    "ask the operator to allow it, for example with --allow '{} {host}{}'",
                    self.method, self.path
                ),
            ],
            Reason::DeniedByRule | Reason::AskDenied | Reason::MethodRefused => {
                vec!["do not retry: the operator's policy forbids this".into()]
            }
            Reason::AskUnavailable => {
                vec!["ask the operator to approve this, then try again".into()]
            }
            Reason::RequestLimit => vec!["wait a minute, then try again more slowly".into()],
            Reason::UploadLimit | Reason::DownloadLimit | Reason::SessionExpired => {
                vec!["ask the operator to raise the limit or to start a new session".into()]
            }
            Reason::AuthorityMismatch | Reason::NameMismatch => {
                vec!["open a connection to the host that the request names, by its name".into()]
            }
            Reason::MalformedRequest => vec!["send one unambiguous HTTP request".into()],
            Reason::Canary => {
                vec!["use the placeholder only with the hosts it is meant for".into()]
            }
            Reason::UpstreamPrivate => {
                vec!["ask the operator to allow the range with [upstream] private".into()]
            }
            Reason::UpstreamCertificate => vec![
                "ask the operator to check the upstream's certificate or to add its authority \
                 with [upstream] ca"
                    .into(),
            ],
            reason if reason.http_status() >= 500 => vec!["try again later".into()],
            _ => vec![],
        }
    }
}

/// The gRPC code nearest to a reason.
fn grpc_status(reason: Reason) -> &'static str {
    match reason.http_status() {
        400 | 408 => "3",  // INVALID_ARGUMENT
        421 | 403 => "7",  // PERMISSION_DENIED
        429 => "8",        // RESOURCE_EXHAUSTED
        502..=504 => "14", // UNAVAILABLE
        _ => "13",         // INTERNAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn refusal<'a>(method: &'a Method, host: &'a Host) -> Refusal<'a> {
        Refusal {
            reason: Reason::NoRule,
            layer: Stage::Request,
            host: Some(host),
            port: 443,
            method,
            path: "/x",
            rule: None,
            message: None,
        }
    }

    #[tokio::test]
    async fn json_says_what_and_what_next() {
        let (method, host) = (Method::POST, Host::Ip([192, 0, 2, 1].into()));
        let answer = refusal(&method, &host).response(Audience::Other, Version::HTTP_11);
        assert_eq!(answer.status(), 403);
        assert_eq!(answer.headers()[X_EGRET], "denied; reason=no_rule");
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["error"], "egress_denied");
        assert_eq!(json["layer"], "request");
        assert_eq!(json["host"], "192.0.2.1");
        assert!(json["next_steps"][1].as_str().unwrap().contains("--allow 'POST 192.0.2.1/x'"));
    }

    #[test]
    fn problem_details_are_for_those_who_accept_them() {
        for (accept, asked) in [
            ("application/problem+json", true),
            ("text/html, application/Problem+JSON;q=0.5", true),
            ("application/json", false),
            ("application/problem+xml, */*", false),
        ] {
            let mut request = HeaderMap::new();
            request.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Audience::of(&request) == Audience::Problem, asked, "{accept}");
        }
    }

    #[tokio::test]
    async fn clients_that_show_little_show_the_reason() {
        let (method, host) = (Method::GET, Host::Ip([192, 0, 2, 1].into()));
        for (agent, kind, text) in [
            (
                "git/2.47.3",
                "text/plain",
                "egress denied (no_rule): no rule of the policy allows this\n",
            ),
            (
                "OpenAI/Python 3",
                "application/json",
                "{\"error\":{\"message\":\"egress denied (no_rule): no",
            ),
            (
                "uv/0.13.9",
                "application/problem+json",
                "{\"title\":\"egress denied (no_rule)\",\"status\":403,\"detail\":\"no rule",
            ),
            ("curl/8", "application/json", "{\"error\":\"egress_denied\",\"reason\":\"no_rule\""),
        ] {
            let mut request = HeaderMap::new();
            request.insert(USER_AGENT, HeaderValue::from_static(agent));
            let audience = Audience::of(&request);
            let answer = refusal(&method, &host).response(audience, Version::HTTP_11);
            let phrase = answer.extensions().get::<ReasonPhrase>().unwrap();
            assert_eq!(phrase.as_bytes(), b"Denied by egret (no_rule)");
            assert_eq!(answer.headers()[CONTENT_TYPE], kind);
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(bytes.starts_with(text.as_bytes()), "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test]
    async fn grpc_gets_its_own_status() {
        let (method, host) = (Method::POST, Host::Ip([192, 0, 2, 1].into()));
        let mut request = HeaderMap::new();
        request.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let answer = refusal(&method, &host).response(Audience::of(&request), Version::HTTP_2);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[GRPC_STATUS], "7");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }

    #[test]
    fn every_reason_has_an_answer() {
        let (method, host) = (Method::GET, Host::Ip([192, 0, 2, 1].into()));
        for reason in Reason::ALL {
            let answer = Refusal { reason: *reason, ..refusal(&method, &host) }
                .response(Audience::Other, Version::HTTP_11);
            assert_eq!(answer.status().as_u16(), reason.http_status(), "{reason}");
        }
    }
}
