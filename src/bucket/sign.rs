//! Signature Version 4, as [its description](https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html) draws it: each
//! header and the hash of the body are signed.

use aws_lc_rs::hmac;

use super::credentials::Credentials;
use crate::types::sha256;

/// What is signed of a request. Path and query are encoded already, see [`encode`]; headers have small letters and stand in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a [(&'static str, String)],
    /// SHA-256 of the body in hex.
    pub(super) body: &'a str,
}

/// The `Authorization` header, for a region at a time such as `20130524T000000Z`.
pub(super) fn authorization(credentials: &Credentials, region: &str, time: &str, request: Signed<'_>) -> String {
    let Signed { method, path, query, headers, body } = request;
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body}");

    let day = time.get(..8).unwrap_or_default();
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(sha256(&[canonical.as_bytes()])));
    let first = zeroize::Zeroizing::new([b"AWS4", credentials.secret()].concat());
    let mut key = keyed(&first, day);
    for part in [region, "s3", "aws4_request"] {
        key = keyed(key.as_ref(), part);
    }
    let signature = hex::encode(keyed(key.as_ref(), &text));
    format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}", credentials.id())
}

fn keyed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// "URI encode every byte except the unreserved characters"; and slashes, where they part a path.
pub(super) fn encode(text: &str, slashes: bool) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        b'/' if slashes => "/".to_owned(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the description.
    #[test]
    fn the_signatures_are_those_of_the_reference() {
        let credentials = Credentials::parse(
            "aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
        let (credentials, time) = (credentials.unwrap(), "20130524T000000Z");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let host = ("host", "examplebucket.s3.amazonaws.com".to_owned());
        let sign = |path: &str, query: &str, headers: &[(&'static str, String)]| {
            let request = Signed { method: "GET", path, query, headers, body: empty };
            authorization(&credentials, "us-east-1", time, request)
        };
        let (hash, date) = (("x-amz-content-sha256", empty.to_owned()), ("x-amz-date", time.to_owned()));
        let object = [host.clone(), ("range", "bytes=0-9".to_owned()), hash.clone(), date.clone()];
        assert_eq!(
            sign("/test.txt", "", &object),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let list = sign("/", "max-keys=2&prefix=J", &[host, hash, date]);
        assert!(list.ends_with("=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{list}");
    }

    #[test]
    fn what_is_not_unreserved_is_encoded() {
        assert_eq!(encode("a/b c+~é", true), "a/b%20c%2B~%C3%A9");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }
}
