//! http-01: a file at a known place on the host ([RFC 8555, 8.3](https://www.rfc-editor.org/rfc/rfc8555#section-8.3)).

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::network::Networks;
use super::{Failure, FailureKind, Host, Outcome, Validator, tls};

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// The most redirects.
const REDIRECTS: usize = 10;

/// One place to look at.
struct Place {
    secure: bool,
    host: Host,
    path: String,
}

pub(super) async fn check(
    validator: &Validator,
    host: &Host,
    token: &str,
    authorization: &str,
    networks: &Networks,
) -> Outcome<()> {
    let path = format!("/.well-known/acme-challenge/{token}");
    let mut place = Place { secure: false, host: host.clone(), path };
    for _ in 0..=REDIRECTS {
        let response = fetch(validator, &place, networks).await?;
        if response.status().is_redirection() {
            place = place.redirect(validator, &response)?;
            continue;
        }
        if response.status() != StatusCode::OK {
            let text = format!("{} answers with status {}", place.host, response.status().as_u16());
            return Err(Failure::new(FailureKind::Incorrect, text));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| {
            let text = format!("the answer of {} is cut off, or longer than 64 KiB", place.host);
            Failure::new(FailureKind::Incorrect, text)
        })?;
        // "The server SHOULD ignore whitespace characters at the end of the body."
        if body.to_bytes().trim_ascii_end() == authorization.as_bytes() {
            return Ok(());
        }
        let text = format!("what {} answers is not the key authorization", place.host);
        return Err(Failure::new(FailureKind::Incorrect, text));
    }
    Err(Failure::new(FailureKind::Connection, format!("{host} redirects more than {REDIRECTS} times")))
}

async fn fetch(validator: &Validator, place: &Place, networks: &Networks) -> Outcome<Response<Incoming>> {
    let port = if place.secure { validator.ports.https } else { validator.ports.http };
    let stream = validator.connect(&place.host, port, networks).await?;
    if !place.secure {
        return ask(stream, place, port).await;
    }
    // The proof is what is found there. A host that has no certificate yet could not redirect to itself otherwise.
    let connector = TlsConnector::from(Arc::new(tls::danger_any_certificate(&[b"http/1.1"])?));
    let name = tls::server_name(&place.host)?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|_| Failure::new(FailureKind::Tls, format!("{} does not speak TLS on port {port}", place.host)))?;
    ask(stream, place, port).await
}

async fn ask<S>(stream: S, place: &Place, port: u16) -> Outcome<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Place { secure, host, path } = place;
    let lost = |_| Failure::new(FailureKind::Connection, format!("{host} does not answer in HTTP"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // It ends with the answer, or with the time that the challenge has.
    tokio::spawn(connection);
    let name = match host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        Host::Name(_) | Host::Address(_) => host.to_string(),
    };
    let standard = if *secure { 443 } else { 80 };
    let name = if port == standard { name } else { format!("{name}:{port}") };
    let request = Request::get(path.as_str())
        .header(HOST, name)
        .header(USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION"), " (ACME validation)"))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Failure::new(FailureKind::Connection, format!("{host} redirects to what is no address")))?;
    sender.send_request(request).await.map_err(lost)
}

impl Place {
    /// Where a redirect leads: to a name, by http or https, on their own ports.
    fn redirect(self, validator: &Validator, response: &Response<Incoming>) -> Outcome<Self> {
        let mut values = response.headers().get_all(LOCATION).iter();
        let location = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
        self.lead(validator, location.unwrap_or_default())
    }

    fn lead(self, validator: &Validator, location: &str) -> Outcome<Self> {
        let from = self.host.clone();
        let wrong = |why: &str| Failure::new(FailureKind::Connection, format!("{from} redirects {why}"));
        let location = location.split('#').next().unwrap_or_default();
        if location.starts_with('/') && !location.starts_with("//") {
            let uri: Uri = location.parse().map_err(|_| wrong("to what is no address"))?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            return Ok(Self { path, ..self });
        }
        let uri: Uri = location.parse().map_err(|_| wrong("to what is no address"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(wrong("to something that is neither http nor https")),
        };
        let port = if secure { validator.ports.https } else { validator.ports.http };
        let standard = if secure { 443 } else { 80 };
        let authority = uri.authority().ok_or_else(|| wrong("to what is no address"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("with a user"));
        }
        if uri.port().is_some_and(|own| own.as_u16() != port && own.as_u16() != standard) {
            return Err(wrong("to another port"));
        }
        let name = authority.host().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // An address, in whatever spelling, ends in digits or stands in brackets; a top-level domain does neither.
        let numeric = name
            .rsplit('.')
            .next()
            .is_none_or(|last| last.is_empty() || last.starts_with(|c: char| c.is_ascii_digit()));
        if numeric || !name.bytes().all(plain) {
            return Err(wrong("to an address instead of a name"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { secure, host: Host::Name(name.to_owned()), path })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ports, Resolver};
    use super::*;

    fn lead(location: &str) -> Option<String> {
        let validator = Validator::new(Resolver::new(vec![]), Ports { http: 5002, https: 5001 });
        let place = Place { secure: false, host: Host::Name("a.test".to_owned()), path: "/x".to_owned() };
        let Place { secure, host, path } = place.lead(&validator, location).ok()?;
        Some(format!("{} {host} {path}", if secure { "https" } else { "http" }))
    }

    #[test]
    fn redirects_lead_to_names_on_the_usual_ports() {
        let good = [
            ("/y?z", "http a.test /y?z"),
            ("http://B.test/y#f", "http b.test /y"),
            ("http://b.test:80/y", "http b.test /y"),
            ("http://b.test:5002", "http b.test /"),
            ("https://b.test./y", "https b.test /y"),
            ("https://b.test:443/y", "https b.test /y"),
        ];
        for (location, place) in good {
            assert_eq!(lead(location).as_deref(), Some(place), "{location}");
        }
        let bad = "ftp://b.test/ file:///etc/passwd gopher://b.test http://b.test:22/ http://b.test:443/ http://127.0.0.1/ \
            http://[::1]/ http://2130706433/ http://0x7f.1/ http://u@b.test/ //b.test/ http:///x javascript:1 y http://";
        for location in bad.split_whitespace().chain([""]) {
            assert_eq!(lead(location), None, "{location}");
        }
    }
}
