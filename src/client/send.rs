//! One request: its attempts, its answer, its failure.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::{Client, PageRequest, problem, tls};
use crate::error::{Error, Kind, Result};

/// A request before it is sent, the same in all its attempts.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    url: Url,
    body: Option<Bytes>,
    if_match: Option<HeaderValue>,
    idempotency_key: Option<HeaderValue>,
    again: bool,
}

impl Call {
    /// Adds a body. It may hold a plaintext, so its bytes are zeroed when the last attempt is over.
    pub(super) fn body(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes = serde_json::to_vec(body).map_err(|e| Error::internal("writing a request").because(e))?;
        self.body = Some(Bytes::from_owner(Zeroizing::new(bytes)));
        Ok(self)
    }

    /// Adds a query parameter, where there is one.
    pub(super) fn query(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.url.query_pairs_mut().append_pair(name, &value.to_string());
        }
        self
    }

    /// Asks for one page of a list.
    pub(super) fn page(self, page: &PageRequest) -> Self {
        self.query("page_size", page.size).query("page_token", page.token.as_ref())
    }

    /// Only where the resource still has this ETag.
    pub(super) fn if_match(mut self, etag: &str) -> Result<Self> {
        let quoted = if etag.starts_with('"') { etag.to_owned() } else { format!("\"{etag}\"") };
        let value = HeaderValue::from_str(&quoted).map_err(|_| Error::new(Kind::Invalid, "not an ETag"))?;
        self.if_match = Some(value);
        Ok(self)
    }

    /// Marks a change: a repetition of this very call is recognised by the server.
    pub(super) fn change(self) -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        self.change_as(&hex::encode(bytes))
    }

    /// Marks a change by an id of the caller's own, so that it is recognised in another call, too.
    pub(super) fn change_as(mut self, id: &str) -> Result<Self> {
        let value = HeaderValue::from_str(id).map_err(|e| Error::new(Kind::Invalid, "no id of a change").because(e))?;
        self.idempotency_key = Some(value);
        Ok(self)
    }

    /// Marks what must not be repeated by itself.
    pub(super) fn once(mut self) -> Self {
        self.again = false;
        self
    }
}

impl Client {
    /// A call below `/api/v1`. Each segment is escaped as a whole, so that no name can reach another route.
    pub(super) fn api(&self, method: Method, path: &[&str]) -> Call {
        self.root(method, &[&["api", "v1"], path].concat())
    }

    /// A call at the root.
    pub(super) fn root(&self, method: Method, path: &[&str]) -> Call {
        let mut url = self.base.clone();
        // `https` addresses always have segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        Call { method, url, body: None, if_match: None, idempotency_key: None, again: true }
    }

    /// Sends `call` and reads the answer's JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        understood(&self.bytes(call).await?)
    }

    /// Sends `call` and reads the answer as text.
    pub(super) async fn text(&self, call: Call) -> Result<String> {
        let body = self.bytes(call).await?;
        String::from_utf8(body.to_vec()).map_err(|_| Error::new(Kind::Internal, "the answer is not UTF-8"))
    }

    /// As [`Self::json`], with the receipt of the answer, where it has one.
    pub(super) async fn json_with_receipt<T: DeserializeOwned>(&self, call: Call) -> Result<(T, Option<String>)> {
        let (body, receipt) = self.answer(call).await?;
        Ok((understood(&body)?, receipt))
    }

    /// Sends `call`, as often as it takes, and reads the answer.
    pub(super) async fn bytes(&self, call: Call) -> Result<Zeroizing<Vec<u8>>> {
        self.answer(call).await.map(|(body, _)| body)
    }

    async fn answer(&self, call: Call) -> Result<(Zeroizing<Vec<u8>>, Option<String>)> {
        let last = Instant::now() + self.retry_for;
        let mut attempt = 0;
        loop {
            let failure = match self.attempt(&call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let wait = failure.wait(attempt);
            if !(call.again && failure.passing() && Instant::now() + wait <= last) {
                return Err(failure.error);
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Sends `call` once and hands out the answer piece by piece, without a bound on its length.
    pub(super) async fn download(&self, call: Call) -> Result<Download> {
        let answer = timeout(self.timeout, self.request(&call).send()).await.map_err(|_| silent(self.timeout))?;
        let mut response = answer.map_err(|e| broken(e, &self.base).error)?;
        self.keep_receipt(&response);
        if response.status().is_success() {
            return Ok(Download { response, patience: self.timeout, base: self.base.clone() });
        }
        let body = self.body(&mut response).await.map_err(|failure| failure.error)?;
        Err(problem::error(response.status(), response.headers(), &body))
    }

    async fn attempt(&self, call: &Call) -> Result<(Zeroizing<Vec<u8>>, Option<String>), Failure> {
        let whole = async {
            let mut response = self.request(call).send().await.map_err(|e| broken(e, &self.base))?;
            self.keep_receipt(&response);
            let receipt = response.headers().get("signet-log").and_then(|receipt| receipt.to_str().ok());
            let receipt = receipt.map(str::to_owned);
            let body = self.body(&mut response).await?;
            if response.status().is_success() {
                return Ok((body, receipt));
            }
            let error = problem::error(response.status(), response.headers(), &body);
            let after = response.headers().get(header::RETRY_AFTER).and(error.wait());
            Err(Failure { error, after })
        };
        timeout(self.timeout, whole).await.unwrap_or_else(|_| Err(silent(self.timeout).into()))
    }

    /// Adds the receipt of an answer to the file that was asked for, by one write: several may share it.
    fn keep_receipt(&self, response: &Response) {
        let (Some(mut file), Some(receipt)) = (self.receipts.as_deref(), response.headers().get("signet-log")) else {
            return;
        };
        let line = [receipt.as_bytes(), b"\n"].concat();
        // The answer is good without it, and what was done is done.
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(%error, "a receipt could not be kept");
        }
    }

    fn request(&self, call: &Call) -> reqwest::RequestBuilder {
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        let headers = [
            (header::AUTHORIZATION, &self.token),
            (header::IF_MATCH, &call.if_match),
            (header::HeaderName::from_static("idempotency-key"), &call.idempotency_key),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        match &call.body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(body.clone()),
            None => request,
        }
    }

    /// Reads at most `max_answer` bytes.
    async fn body(&self, response: &mut Response) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let announced = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let mut body = Zeroizing::new(Vec::with_capacity(announced.min(self.max_answer)));
        while let Some(piece) = response.chunk().await.map_err(|e| broken(e, &self.base))? {
            if body.len() + piece.len() > self.max_answer {
                let limit = format!("the answer is longer than {} bytes", self.max_answer);
                return Err(Error::new(Kind::Limit, limit).hint("ask for fewer items at a time").into());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// The JSON of an answer.
fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    // Only the place is told: the parser's sentence may quote a secret.
    serde_json::from_slice(body).map_err(|e| {
        Error::new(Kind::Internal, format!("the answer is not understood, line {} column {}", e.line(), e.column()))
            .hint("compare the versions: signet --version and signet status")
    })
}

/// An answer that is read piece by piece.
#[derive(Debug)]
pub struct Download {
    response: Response,
    patience: Duration,
    base: Url,
}

impl Download {
    /// The next piece; none at the end. An answer that was cut off is an error, not an end.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the connection breaks or falls silent.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        let piece = timeout(self.patience, self.response.chunk()).await.map_err(|_| silent(self.patience))?;
        piece.map_err(|e| broken(e, &self.base).error)
    }
}

/// Why an attempt failed, and how long the server asked to wait.
struct Failure {
    error: Error,
    after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, after: None }
    }
}

impl Failure {
    /// Whether another attempt may go better.
    fn passing(&self) -> bool {
        matches!(self.error.kind(), Kind::Busy | Kind::Unavailable)
    }

    /// What the server asked for, else 0.1 s, doubled with each attempt up to 2 s; up to a quarter more, so that clients that
    /// failed together do not come back together.
    fn wait(&self, attempt: u32) -> Duration {
        let own = Duration::from_millis(100).saturating_mul(1 << attempt.min(8)).min(Duration::from_secs(2));
        let wait = self.after.unwrap_or(own);
        let mut byte = [0];
        // Without randomness the wait has no jitter, which is no reason to fail.
        let _ = getrandom::fill(&mut byte);
        wait + wait.mul_f64(f64::from(u8::from_le_bytes(byte)) / 1020.0)
    }
}

/// A request that got no whole answer. The address stays out of the cause: it is in the sentence, without the query.
fn broken(error: reqwest::Error, base: &Url) -> Failure {
    if let Some(refusal) = tls::refusal(&error) {
        return refusal.into();
    }
    let what = if error.is_connect() { "no connection to the server" } else { "the connection broke to the server" };
    let sentence = format!("{what} at {base}: {}", root(&error));
    Error::new(Kind::Unavailable, sentence)
        .hint("check --server, and that the server runs and can be reached from here")
        .because(error.without_url())
        .into()
}

/// The innermost cause, such as *connection refused*: what the layers around it say is the sentence's own part.
fn root(error: &reqwest::Error) -> String {
    let mut innermost: &dyn StdError = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn silent(after: Duration) -> Error {
    Error::new(Kind::Unavailable, format!("the server did not answer within {} s", after.as_secs_f64()))
        .hint("try again, or allow more by --timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Options;

    fn client() -> Client {
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Client::new(Options::new("https://localhost:1", authority.cert.pem().into_bytes())).unwrap()
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        let call = client().api(Method::GET, &["tokens", "../../x?y#z"]).query("page_token", Some("a&b=c"));
        assert_eq!(call.url.as_str(), "https://localhost:1/api/v1/tokens/..%2F..%2Fx%3Fy%23z?page_token=a%26b%3Dc");
        let key = client().api(Method::GET, &["keys", "payments:card-data"]);
        assert_eq!(key.url.path(), "/api/v1/keys/payments:card-data");
    }

    #[test]
    fn each_change_has_its_own_key() {
        let [one, two] =
            [1, 2].map(|_| client().api(Method::POST, &["keys"]).change().unwrap().idempotency_key.unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
    }

    #[test]
    fn waits_grow_and_obey_the_server() {
        let own = Failure::from(Error::new(Kind::Unavailable, "x"));
        assert!(own.wait(0) >= Duration::from_millis(100) && own.wait(0) <= Duration::from_millis(125));
        assert!(own.wait(30) >= Duration::from_secs(2) && own.wait(30) <= Duration::from_millis(2500));
        let told = Failure { after: Some(Duration::from_secs(4)), ..own };
        assert!(told.wait(0) >= Duration::from_secs(4) && told.wait(9) <= Duration::from_secs(5));
    }
}
