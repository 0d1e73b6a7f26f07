//! Objects in an S3-compatible bucket that the configuration names: listed, read, and made; never written over, never removed.
//!
//! ```text
//! PUT /BUCKET/PREFIX/log-00000000000000000000.jsonl.gz HTTP/1.1
//! if-none-match: *                         only where there is none of that name
//! x-amz-checksum-sha256: …                 the store compares what arrived
//! authorization: AWS4-HMAC-SHA256 …        over all of that, the time, and the hash of the body
//! ```
//!
//! The address of the bucket is a path, which every store knows. TLS is 1.3, its anchors are those of a file; no redirect is followed and no
//! proxy asked. The files of credentials and anchors are read for each connection, so that they can be exchanged while the service runs.
//! Calls block, each for a bounded time: they are for threads of their own.

mod credentials;
mod sign;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::error::{Error, Kind, Result};
use crate::outbound::{Address, Line, Place};
use crate::types::{Clock, sha256};
use credentials::Credentials;
use sign::{Signed, authorization, encode};

/// The most bytes of a list, or of what is said of a failure.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// The most objects that are listed.
const MAX_OBJECTS: usize = 1_000_000;

/// How long a request may take unless told otherwise.
const USUAL_PATIENCE: Duration = Duration::from_secs(60);
/// How the address of a bucket begins.
pub const SCHEME: &str = "s3://";

/// What the operator says of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the store is.
    pub place: Place,
    /// The name of the bucket.
    pub bucket: String,
    /// What stands before the names of objects: empty, or with a slash at its end.
    pub prefix: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The file of credentials.
    pub credentials_file: PathBuf,
    /// How long an attempt may take.
    pub patience: Duration,
}

impl Settings {
    /// Those of a bucket at `s3://BUCKET/PREFIX`; in the store of AWS in that region unless an endpoint is given.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with what it should be.
    pub fn new(
        address: &str,
        region: Option<String>,
        endpoint: Option<String>,
        anchors: Option<PathBuf>,
        credentials_file: PathBuf,
    ) -> Result<Self> {
        let (bucket, prefix) = parse(address)?;
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        if !(1..=64).contains(&region.len()) || !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Error::new(Kind::Invalid, "a region is 1 to 64 letters, digits and dashes"));
        }
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let address: Address = endpoint.parse().map_err(|e: Error| e.context("endpoint"))?;
        if address.path() != "/" {
            return Err(Error::new(Kind::Invalid, "an endpoint has no path").hint("the bucket is named by itself"));
        }
        if endpoint.starts_with("https") != anchors.is_some() {
            return Err(Error::new(Kind::Invalid, "ca and an https endpoint go together").hint(
                "ca is the file of those that may certify the store: /etc/ssl/certs/ca-certificates.crt holds the public ones",
            ));
        }
        let (place, patience) = (Place { address, anchors }, USUAL_PATIENCE);
        Ok(Self { place, bucket, prefix, region, credentials_file, patience })
    }

    /// As it is written: `s3://BUCKET/PREFIX`.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    /// Whether its files hold.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the one that does not.
    pub fn check(&self) -> Result<()> {
        Credentials::read(&self.credentials_file)?;
        self.place.check()
    }
}

/// A bucket, with the connection to its store.
#[derive(Debug)]
pub struct Bucket {
    settings: Settings,
    runtime: Runtime,
    line: Option<(Line, Credentials)>,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name behind the prefix.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// What came of making an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there now.
    New,
    /// One of that name was there, and still is.
    Taken,
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What is asked.
struct Question<'a> {
    method: Method,
    /// None for the bucket itself.
    name: Option<&'a str>,
    /// Encoded, in order.
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// The most bytes of the answer.
    most: usize,
}

impl Bucket {
    /// The bucket of `settings`. It is not asked yet.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the system gives no more.
    pub fn new(settings: Settings) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Unavailable, "a bucket cannot be asked").because(e))?;
        Ok(Self { settings, runtime, line: None })
    }

    /// As it is written: `s3://BUCKET/PREFIX`.
    #[must_use]
    pub fn shown(&self) -> String {
        self.settings.shown()
    }

    /// All objects below the prefix, in the order of their names.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] with what the store says; [`Kind::Limit`] where there are too many.
    pub fn list(&mut self) -> Result<Vec<Object>> {
        let (mut objects, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut query = String::new();
            if let Some(token) = &token {
                let _ = write!(query, "continuation-token={}&", encode(token, false));
            }
            let _ = write!(query, "list-type=2&prefix={}", encode(&self.settings.prefix, false));
            let question = Question { query, ..Question::new(Method::GET, None, MAX_TEXT) };
            let answer = self.ask(question)?;
            if !answer.status.is_success() {
                return Err(self.refused(&answer));
            }
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            for part in text.split("<Contents>").skip(1) {
                let object = object(part, &self.settings.prefix);
                objects.push(object.ok_or_else(|| self.failed("answers with a list that cannot be read"))?);
            }
            if objects.len() > MAX_OBJECTS {
                return Err(Error::new(Kind::Limit, format!("{} holds more than {MAX_OBJECTS} objects", self.shown())));
            }
            token = tag(&text, "NextContinuationToken").map(unescaped);
            if tag(&text, "IsTruncated") != Some("true") {
                objects.sort_by(|one, other| one.name.cmp(&other.name));
                return Ok(objects);
            }
            if token.is_none() {
                return Err(self.failed("answers with a list that does not go on"));
            }
        }
    }

    /// What an object holds, of at most `most` bytes; `None` where there is none.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] with what the store says, or where it is longer.
    pub fn get(&mut self, name: &str, most: usize) -> Result<Option<Bytes>> {
        let answer = self.ask(Question::new(Method::GET, Some(name), most))?;
        if answer.status.is_success() {
            return Ok(Some(answer.body));
        }
        let error = self.refused(&answer);
        if code(&answer) == Some("NoSuchKey") { Ok(None) } else { Err(error) }
    }

    /// Makes an object where there is none of that name.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] with what the store says. It may be there all the same.
    pub fn make(&mut self, name: &str, body: Bytes) -> Result<Made> {
        let checksum = ("x-amz-checksum-sha256", BASE64.encode(sha256(&[&body])));
        let put = |more: Option<(&'static str, String)>| Question {
            body: body.clone(),
            headers: [checksum.clone()].into_iter().chain(more).collect(),
            ..Question::new(Method::PUT, Some(name), MAX_TEXT)
        };
        let mut answer = self.ask(put(Some(("if-none-match", "*".to_owned()))))?;
        // A store that does not know conditions is asked first; nobody else should write there.
        if answer.status == StatusCode::NOT_IMPLEMENTED {
            let there = self.ask(Question::new(Method::HEAD, Some(name), 0))?;
            if there.status.is_success() {
                return Ok(Made::Taken);
            }
            if there.status != StatusCode::NOT_FOUND {
                return Err(self.refused(&there));
            }
            answer = self.ask(put(None))?;
        }
        match answer.status {
            status if status.is_success() => Ok(Made::New),
            StatusCode::PRECONDITION_FAILED => Ok(Made::Taken),
            _ => Err(self.refused(&answer)),
        }
    }

    fn ask(&mut self, question: Question<'_>) -> Result<Answer> {
        let Self { settings, runtime, line } = self;
        let late = || settings.place.failed(format!("gave no answer within {} s", settings.patience.as_secs_f64()));
        let asked = async { timeout(settings.patience, exchange(settings, line, &question)).await };
        runtime.block_on(asked).map_err(|_| late())?
    }

    /// What the store says that we should know, in our words: nothing else of an answer is quoted.
    fn refused(&self, answer: &Answer) -> Error {
        let Settings { bucket, credentials_file, .. } = &self.settings;
        let code = code(answer).unwrap_or_default();
        let (text, hint) = match (code, answer.status) {
            ("NoSuchBucket", _) => (format!("has no bucket {bucket}"), "make it, or correct its name".to_owned()),
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" | "ExpiredToken" | "InvalidToken", _) => (
                format!("does not let us in ({code})"),
                format!("look at {}, and at what it may do: list, read and put", credentials_file.display()),
            ),
            ("RequestTimeTooSkewed", _) => (
                format!("does not accept our clock{}", difference(&answer.headers)),
                "set the clock of this machine: `chronyc tracking` tells how it is".to_owned(),
            ),
            (
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            ) => (format!("says that the bucket is elsewhere ({code})"), "correct region and endpoint".to_owned()),
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => (
                format!("does not let us in (status {})", answer.status.as_u16()),
                format!("look at {}", credentials_file.display()),
            ),
            (_, status) => {
                (format!("answers with status {}", status.as_u16()), "the log of the store says why".to_owned())
            }
        };
        self.failed(text).hint(hint)
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        self.settings.place.failed(why)
    }
}

impl<'a> Question<'a> {
    const fn new(method: Method, name: Option<&'a str>, most: usize) -> Self {
        Self { method, name, query: String::new(), headers: Vec::new(), body: Bytes::new(), most }
    }
}

/// Bucket and prefix.
fn parse(address: &str) -> Result<(String, String)> {
    let wrong = || {
        Error::new(Kind::Invalid, format!("{address} is not the address of a bucket"))
            .hint("s3://BUCKET/PREFIX: a bucket has 3 to 63 small letters, digits, dots and dashes; a prefix letters, digits and . _ - /")
    };
    let rest = address.strip_prefix(SCHEME).ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let of_bucket = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let of_prefix = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let prefix = prefix.trim_end_matches('/');
    let good = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(of_bucket)
        && prefix.len() <= 200
        && prefix.bytes().all(of_prefix)
        && (prefix.is_empty() || prefix.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if !good {
        return Err(wrong());
    }
    Ok((bucket.to_owned(), if prefix.is_empty() { String::new() } else { format!("{prefix}/") }))
}

/// Asks over the connection that is open, or over a new one.
async fn exchange(
    settings: &Settings,
    line: &mut Option<(Line, Credentials)>,
    question: &Question<'_>,
) -> Result<Answer> {
    // Taken out while it is used, so that one that is given up half-way is not used again.
    let (answer, open) = if let Some((mut open, credentials)) = line.take().filter(|(open, _)| !open.is_closed())
        && let Ok(answer) = open.ask(request(settings, &credentials, question)?).await
    {
        (answer, (open, credentials))
    } else {
        let credentials = Credentials::read(&settings.credentials_file)?;
        let mut open = settings.place.connect().await?;
        let answer = open.ask(request(settings, &credentials, question)?).await?;
        (answer, (open, credentials))
    };
    let (head, body) = answer.into_parts();
    let most = if head.status.is_success() { question.most } else { MAX_TEXT };
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|_| settings.place.failed(format!("gave no whole answer of at most {most} bytes")))?;
    if head.status.is_success() {
        *line = Some(open);
    }
    Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
}

fn request(settings: &Settings, credentials: &Credentials, question: &Question<'_>) -> Result<Request<Full<Bytes>>> {
    let Settings { place, bucket, prefix, region, .. } = settings;
    let Question { method, name, query, headers, body, most: _ } = question;
    let path = match name {
        Some(name) => encode(&format!("/{bucket}/{prefix}{name}"), true),
        None => encode(&format!("/{bucket}"), true),
    };
    let time = Clock::System.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let hash = hex::encode(sha256(&[body]));
    let mut headers = headers.clone();
    headers.push(("host", place.address.authority()));
    headers.push(("x-amz-content-sha256", hash.clone()));
    headers.push(("x-amz-date", time.clone()));
    headers.extend(credentials.session().map(|session| ("x-amz-security-token", session.to_owned())));
    headers.sort();
    let signed = Signed { method: method.as_str(), path: &path, query, headers: &headers, body: &hash };
    let authorization = authorization(credentials, region, &time, signed);
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let mut request = Request::builder().method(method.clone()).uri(target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
        .header(header::USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION")))
        .header(header::AUTHORIZATION, authorization)
        .body(Full::new(body.clone()))
        .map_err(|e| Error::internal(format!("a request to a store: {e}")))
}

/// The code of a failure, where it says one.
fn code(answer: &Answer) -> Option<&str> {
    std::str::from_utf8(&answer.body).ok().and_then(|text| tag(text, "Code"))
}

/// By how much the clocks differ, as the `Date` of the answer tells.
fn difference(headers: &HeaderMap) -> String {
    let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
    let theirs: Option<Timestamp> = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()).map(|at| at.timestamp());
    theirs.map_or_else(String::new, |theirs| {
        let seconds = Clock::System.now().duration_since(theirs).as_secs();
        let way = if seconds < 0 { "behind" } else { "ahead of" };
        format!(": it is {} s {way} its own", seconds.abs())
    })
}

/// An object in a list; what follows it is passed over.
fn object(part: &str, prefix: &str) -> Option<Object> {
    let name = unescaped(tag(part, "Key")?).strip_prefix(prefix)?.to_owned();
    Some(Object { name, size: tag(part, "Size")?.parse().ok()? })
}

/// The text of the first element of this name. Such text holds no bracket, so that no more of XML is needed.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0).filter(|text| !text.contains('<'))
}

/// The five names of XML; a name of ours has none of them.
fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#34;", "\"");
    text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn an_address_names_a_bucket_and_a_prefix() {
        let both =
            |text: &str| parse(text).map(|(bucket, prefix)| format!("{bucket} {prefix}")).map_err(|e| e.to_string());
        for (text, read) in [("s3://logs", "logs "), ("s3://logs/", "logs "), ("s3://a.b-1/x/y/", "a.b-1 x/y/")] {
            assert_eq!(both(text), Ok(read.to_owned()));
        }
        for bad in [
            "",
            "logs",
            "s3://",
            "s3://ab",
            "s3://Logs",
            "s3://logs/a b",
            "s3://logs//a",
            "s3://logs/../a",
            "s3://lo?gs",
        ] {
            assert!(both(bad).unwrap_err().contains("not the address of a bucket"), "{bad}");
        }
    }

    /// A store on this machine that gives these answers, one for each connection. What comes out is the head of each request.
    fn store(answers: &'static [&'static str]) -> (Settings, tempfile::TempDir, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (folder, endpoint) = (tempfile::tempdir().unwrap(), format!("http://{}", listener.local_addr().unwrap()));
        let file = folder.path().join("credentials");
        std::fs::write(&file, "aws_access_key_id = ID\naws_secret_access_key = hidden").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let heads = thread::spawn(move || {
            let head = |answer: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    reader.read_line(&mut head).unwrap();
                }
                write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
                head
            };
            answers.iter().map(head).collect()
        });
        (Settings::new("s3://logs/p", None, Some(endpoint), None, file).unwrap(), folder, heads)
    }

    #[test]
    fn nothing_is_written_over_in_a_store_that_knows_no_conditions() {
        let cases: [(&[&str], _, &[&str]); 4] = [
            (&["200 x"], Some(Made::New), &["PUT *"]),
            (&["412 x"], Some(Made::Taken), &["PUT *"]),
            (&["501 x", "404 x", "200 x"], Some(Made::New), &["PUT *", "HEAD", "PUT"]),
            (&["501 x", "200 x"], Some(Made::Taken), &["PUT *", "HEAD"]),
        ];
        for (answers, made, asked) in cases {
            let (settings, _folder, heads) = store(answers);
            assert_eq!(Bucket::new(settings).unwrap().make("a", Bytes::new()).ok(), made, "{answers:?}");
            let heads = heads.join().unwrap();
            let method = |head: &String| {
                assert!(head.contains(" /logs/p/a HTTP/1.1") && !head.contains("hidden"), "{head}");
                let condition = if head.contains("if-none-match: *\r\n") { " *" } else { "" };
                format!("{}{condition}", head.split(' ').next().unwrap())
            };
            assert_eq!(heads.iter().map(method).collect::<Vec<_>>(), asked);
        }
    }

    #[test]
    fn a_list_is_read() {
        let text = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>\
            <Contents><Key>p/log-1</Key><Size>7</Size></Contents><Contents><Size>8</Size><Key>p/a&lt;b</Key></Contents>";
        let parts: Vec<_> = text.split("<Contents>").skip(1).map(|part| object(part, "p/")).collect();
        let named = |name: &str, size| Some(Object { name: name.to_owned(), size });
        assert_eq!(parts, [named("log-1", 7), named("a<b", 8)]);
        assert_eq!(tag(text, "NextContinuationToken").map(unescaped).as_deref(), Some("a&b="));
        assert_eq!((object("<Key>q/x</Key><Size>1</Size>", "p/"), tag("<a><b></a>", "a")), (None, None));
    }
}
