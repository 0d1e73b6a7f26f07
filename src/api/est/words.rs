//! What stands in requests and answers of EST, between bytes and values.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::x509::csr::{Csr, MAX_CSR};

/// The most bytes of a body: the longest request in base64, with room for white space.
pub const MAX_BODY: usize = 2 * MAX_CSR;
/// The characters of a line of base64.
const LINE: usize = 64;

const CONTENT_TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// The bearer token that stands where the password does ([RFC 7617](https://www.rfc-editor.org/rfc/rfc7617#section-2)); the user's
/// name is not looked at. A header that is there and holds none, or is there twice, is a wrong token: it never lets the certificate
/// speak instead.
pub(super) fn password(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?;
    let read = |value: &HeaderValue| {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        let pair = Zeroizing::new(STANDARD.decode(encoded.trim_matches(' ')).ok()?);
        let (_, token) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        scheme.eq_ignore_ascii_case("basic").then(|| Zeroizing::new(token.to_owned()))
    };
    let only = if values.next().is_none() { read(value) } else { None };
    Some(only.unwrap_or_default())
}

/// That the body is said to be a PKCS #10 request, and not compressed. A Content-Transfer-Encoding is not looked at
/// ([RFC 8951, 3.1](https://www.rfc-editor.org/rfc/rfc8951#section-3.1)): the body is always base64.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Failure> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/pkcs10") && !headers.contains_key(CONTENT_ENCODING) {
        return Ok(());
    }
    let error = Error::new(Kind::Invalid, "the body of this route is a PKCS #10 request")
        .hint("send `Content-Type: application/pkcs10`, and the request in base64, not compressed");
    Err(Failure { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, error })
}

/// The request of a body. White space may stand anywhere in it.
pub(super) fn request(body: &[u8]) -> Result<Csr> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(text).map_err(|_| {
        Error::new(Kind::Invalid, "the body is not base64").hint(
            "send the DER of the request in base64, without the lines BEGIN and END: openssl req -outform DER | base64",
        )
    })?;
    Csr::parse(&der)
}

/// An answer in base64.
pub(super) fn answer(media_type: &'static str, der: &[u8]) -> Response<Body> {
    let text = STANDARD.encode(der);
    let mut body = String::with_capacity(text.len() + text.len() / LINE + 1);
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            body.push('\n');
        }
        body.push(character);
    }
    body.push('\n');
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // RFC 8951, 3.1 tells clients not to look at it; those that were written before do.
    response.headers_mut().insert(CONTENT_TRANSFER_ENCODING, HeaderValue::from_static("base64"));
    response
}

/// Why a request is not answered as it wished, and by which status.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            Kind::Invalid | Kind::DoesNotOpen | Kind::Unsupported => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict | Kind::Stale | Kind::State => StatusCode::CONFLICT,
            Kind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Tampered | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl Failure {
    /// "If the content-type is not set, the response data MUST be a plaintext human-readable error message"
    /// ([RFC 7030, 4.2.3](https://www.rfc-editor.org/rfc/rfc7030#section-4.2.3)).
    pub(super) fn respond(&self, request_id: &str) -> Response<Body> {
        let Self { status, error } = self;
        match error.kind() {
            Kind::Internal | Kind::Tampered | Kind::Unavailable => {
                let (code, cause) = (error.kind().code(), error.chain());
                tracing::error!(request = request_id, code, cause, "an enrolment failed");
            }
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::Stale
            | Kind::State
            | Kind::Limit
            | Kind::DoesNotOpen
            | Kind::Unsupported
            | Kind::Busy => {}
        }
        let hint = error.mend().map(|mend| format!("hint: {mend}\n")).unwrap_or_default();
        let mut response = Response::new(Body::from(format!("{error}\n{hint}")));
        *response.status_mut() = *status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if *status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"signet\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Some(wait) = error.wait() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_token_is_the_password_and_anything_else_is_a_wrong_one() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let token = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|value| (AUTHORIZATION, *value)).collect();
            password(&headers(&values)).map(|token| token.to_string())
        };
        assert_eq!(token(&[]), None);
        for user in ["", "device-7", "ann:sgt_"] {
            let expected = if user.contains(':') { "sgt_:sgt_x" } else { "sgt_x" };
            assert_eq!(token(&[&basic(&format!("{user}:sgt_x"))]).as_deref(), Some(expected));
        }
        assert_eq!(token(&[&basic("a:sgt_x").replace("Basic", "bAsIc")]).as_deref(), Some("sgt_x"));
        let (once, none) = (basic("a:sgt_x"), basic("sgt_x"));
        for wrong in [&["Bearer sgt_x"][..], &["Basic sgt_x"], &["Basic"], &[&none], &[&once, &once], &["Basic /w=="]] {
            assert_eq!(token(wrong).as_deref(), Some(""), "{wrong:?}");
        }
    }

    #[test]
    fn bodies_are_of_one_type() {
        let status =
            |values: &[(HeaderName, &str)]| check_type(&headers(values)).map_err(|failure| failure.status.as_u16());
        assert_eq!(status(&[(CONTENT_TYPE, "application/pkcs10")]), Ok(()));
        assert_eq!(status(&[(CONTENT_TYPE, "Application/PKCS10; x=y"), (CONTENT_TRANSFER_ENCODING, "binary")]), Ok(()));
        assert_eq!(status(&[]), Err(415));
        assert_eq!(status(&[(CONTENT_TYPE, "application/json")]), Err(415));
        assert_eq!(status(&[(CONTENT_TYPE, "application/pkcs10"), (CONTENT_ENCODING, "gzip")]), Err(415));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for wrong in [&b""[..], b"MAA", b"MAA=", b"-----BEGIN CERTIFICATE REQUEST-----", b"\xff", b"MIIB\0"] {
            assert_eq!(request(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong:?}");
        }
    }
}
