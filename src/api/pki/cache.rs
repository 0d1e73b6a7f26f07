//! How long others may keep what is public ([RFC 9111](https://www.rfc-editor.org/rfc/rfc9111)).

use std::time::Duration;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::OCSP_RESPONSE;
use crate::service::Published;

/// A media type, and the longest time that it is kept without asking again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    media_type: &'static str,
    longest: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Freshness {
    /// Lists are made anew soon after a revocation, long before the last one ends: they are asked for again, and most often
    /// not sent again.
    pub(super) const LIST: Self = Self { media_type: "application/pkix-crl", longest: MINUTE.saturating_mul(5) };
    /// The certificate of a version never changes.
    pub(super) const CERTIFICATE: Self =
        Self { media_type: "application/pkix-cert", longest: MINUTE.saturating_mul(24 * 60) };
    /// A new version is in the bundle long before it is used.
    pub(super) const BUNDLE: Self =
        Self { media_type: "application/pem-certificate-chain", longest: MINUTE.saturating_mul(5) };
    /// As [`Self::BUNDLE`].
    pub(super) const SPIFFE_BUNDLE: Self = Self { media_type: "application/json", longest: MINUTE.saturating_mul(5) };
    /// "the time of expiration ... is determined by the nextUpdate" ([RFC 5019, 6.2](https://www.rfc-editor.org/rfc/rfc5019#section-6.2)):
    /// whoever wants to know sooner of a revocation asks with a nonce, or by POST.
    pub(super) const STATUS: Self = Self { media_type: OCSP_RESPONSE, longest: MINUTE.saturating_mul(60) };

    /// The file, or that the client has it already.
    pub(super) fn respond(self, headers: &HeaderMap, published: &Published, now: Timestamp) -> Response<Body> {
        let Published { bytes, etag, made, until } = published;
        let left = until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default());
        let age = left.map_or(self.longest, |left| left.min(self.longest));
        let known = headers.get_all(IF_NONE_MATCH).iter().any(|known| names(known, etag));
        let mut response = Response::new(if known { Body::empty() } else { Body::from(bytes.clone()) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        }
        let control = format!("public, max-age={}, no-transform, must-revalidate", age.as_secs());
        let mut set = |name: HeaderName, text: Option<String>| {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
                response.headers_mut().insert(name, value);
            }
        };
        set(CACHE_CONTROL, Some(control));
        set(ETAG, Some(format!("\"{etag}\"")));
        set(LAST_MODIFIED, made.and_then(date));
        set(EXPIRES, until.and_then(date));
        response
    }
}

/// Whether a list of ETags has this one. "A recipient MUST use the weak comparison function" ([RFC 9110, 13.1.2](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2)).
fn names(list: &HeaderValue, etag: &str) -> bool {
    let own = |one: &str| one == "*" || one.trim_start_matches("W/").trim_matches('"') == etag;
    list.to_str().is_ok_and(|list| list.split(',').any(|one| own(one.trim())))
}

fn date(time: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::pki::{from_base64, version};

    fn published() -> Published {
        let (made, until) = ("2026-03-04T05:06:07Z".parse().unwrap(), "2026-03-04T05:16:07Z".parse().unwrap());
        Published { bytes: vec![1, 2, 3].into(), etag: "abc".into(), made: Some(made), until: Some(until) }
    }

    fn respond(freshness: Freshness, pairs: &[&'static str], now: &str) -> (u16, HeaderMap) {
        let headers: HeaderMap = pairs.iter().map(|value| (IF_NONE_MATCH, HeaderValue::from_static(value))).collect();
        let (head, _) = freshness.respond(&headers, &published(), now.parse().unwrap()).into_parts();
        (head.status.as_u16(), head.headers)
    }

    #[test]
    fn nothing_is_kept_longer_than_it_lasts() {
        let cases = [
            (Freshness::STATUS, "2026-03-04T05:06:07Z", "600"),
            (Freshness::LIST, "2026-03-04T05:06:07Z", "300"),
            (Freshness::LIST, "2026-03-04T05:14:07Z", "120"),
            (Freshness::LIST, "2026-03-04T06:00:00Z", "0"),
        ];
        for (freshness, now, age) in cases {
            let (status, headers) = respond(freshness, &[], now);
            assert_eq!(status, 200);
            assert_eq!(headers[CACHE_CONTROL], format!("public, max-age={age}, no-transform, must-revalidate"));
            assert_eq!(headers[LAST_MODIFIED], "Wed, 04 Mar 2026 05:06:07 GMT");
            assert_eq!(headers[EXPIRES], "Wed, 04 Mar 2026 05:16:07 GMT");
            assert_eq!(headers[ETAG], "\"abc\"");
        }
    }

    #[test]
    fn who_has_it_already_gets_no_body() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            let (status, headers) = respond(Freshness::LIST, &[known], "2026-03-04T05:06:07Z");
            assert_eq!((status, headers.get(CONTENT_TYPE)), (304, None), "{known}");
        }
        for other in ["\"ab\"", "\"abcd\"", ""] {
            assert_eq!(respond(Freshness::LIST, &[other], "2026-03-04T05:06:07Z").0, 200, "{other}");
        }
    }

    #[test]
    fn paths_have_one_spelling_for_a_version_and_two_for_base64() {
        assert_eq!(version("17").unwrap().number(), 17);
        for bad in ["", "0", "01", "+1", "-1", "4294967296", "1 "] {
            assert!(version(bad).is_err(), "{bad}");
        }
        assert_eq!([from_base64("MAA="), from_base64("MAA")], [[0x30, 0], [0x30, 0]]);
        assert!(from_base64("MA*").is_empty());
    }
}
