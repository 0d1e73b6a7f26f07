//! Where somebody is who is asked or told something.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

use crate::error::{Error, Kind, Result};

/// The longest address.
const MOST: usize = 2000;

/// An https address, or an http one on this machine. What stands behind the host may be a secret, and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) secure: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// With the query.
    path: String,
}

impl Address {
    /// What is asked for: the path, with the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What stands in the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { secure, host, port, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let standard = if *secure { 443 } else { 80 };
        if *port == standard { host } else { format!("{host}:{port}") }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Kind::Invalid, "not the address of a receiver").hint(format!(
                "https:// and a host, or http:// and localhost, at most {MOST} characters, without a user or a fragment"
            ))
        };
        let plain = text.len() <= MOST && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains('#');
        let uri: Uri = text.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if host.is_empty() || !(secure || here) {
            return Err(wrong());
        }
        // What stands behind the host and is no port would be passed over.
        if authority.port().is_none() && authority.as_str() != authority.host() {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host, port, path })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_told_in_the_clear_and_no_path_is_shown() {
        let good = [
            ("https://hooks.example/a?b=c", "https://hooks.example", "/a?b=c"),
            ("https://Hooks.example:8443", "https://hooks.example:8443", "/"),
            ("https://10.0.0.1/x", "https://10.0.0.1", "/x"),
            ("http://localhost:9000/x", "http://localhost:9000", "/x"),
            ("http://127.0.0.2/", "http://127.0.0.2", "/"),
            ("http://[::1]:9000/x", "http://[::1]:9000", "/x"),
        ];
        for (text, shown, path) in good {
            let address: Address = text.parse().unwrap();
            assert_eq!((format!("{address:?}").as_str(), address.path.as_str()), (shown, path), "{text}");
        }
        let bad = "http://hooks.example/ http://10.0.0.1/ http://[::2]/ http://localhost.example/ https://u@hooks.example/ \
            https://u:p@hooks.example/ https:///x https://hooks.example/#x ftp://hooks.example/ hooks.example /x file:///x \
            https://hooks.example:99999/ https://hooks.example:/";
        for text in bad.split_whitespace().chain(["", "https://hooks.example/\u{e9}"]) {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.mend().is_some() && (text.is_empty() || !error.chain().contains(text)), "{text}");
        }
    }
}
