//! One call of a closed route: who, and the parts of the request, turned into our types.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Query, RawPathParams};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use zeroize::Zeroizing;

use super::row::RouteRow;
use crate::error::{Error, Kind, Result};
use crate::service::{DEFAULT_PAGE, Idempotency, MAX_PAGE, Service};
use crate::types::{Caller, IssuerName, KeyName, Name, ProfileName, Version};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request of somebody who is known. Only the front makes one, after authentication.
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) caller: Caller,
    /// What recognises a repetition of this change; none where it is no change.
    pub(super) idempotency: Idempotency,
    head: Parts,
    params: RawPathParams,
    query: Vec<(String, String)>,
    body: Zeroizing<Vec<u8>>,
}

/// Which page of a list.
#[derive(Debug)]
pub(super) struct PageWanted {
    pub(super) size: usize,
    after: Option<String>,
}

impl Call {
    /// Takes a request apart.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a query that the row does not know.
    pub(super) fn new(
        service: Arc<Service>,
        caller: Caller,
        idempotency: Idempotency,
        row: &RouteRow,
        head: Parts,
        params: RawPathParams,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Self> {
        let query = query(row, &head)?;
        Ok(Self { service, caller, idempotency, head, params, query, body })
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The key of the path.
    pub(super) fn key(&self) -> Result<KeyName> {
        self.path("key")?.parse()
    }

    /// The issuer of the path.
    pub(super) fn issuer(&self) -> Result<IssuerName> {
        self.path("issuer")?.parse()
    }

    /// The profile of the path.
    pub(super) fn profile(&self) -> Result<ProfileName> {
        self.path("profile")?.parse()
    }

    /// The name of the path.
    pub(super) fn name(&self) -> Result<Name> {
        self.path("name")?.parse()
    }

    /// The version of the path.
    pub(super) fn version(&self) -> Result<Version> {
        version(self.path("version")?)
    }

    /// A segment of the path, decoded.
    pub(super) fn path(&self, name: &str) -> Result<&str> {
        let found = self.params.iter().find(|(own, _)| *own == name);
        found.map(|(_, text)| text).ok_or_else(|| Error::internal(format!("the route has no {name}")))
    }

    /// A query parameter, read by `parse`.
    pub(super) fn query<T>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        let found = self.query.iter().find(|(own, _)| own == name);
        found.map(|(_, text)| parse(text).map_err(|e| e.context(name))).transpose()
    }

    /// The ETag of `If-Match`, without its quotes.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for `*`, for weak ETags and for several: one version of the resource is meant.
    pub(super) fn if_match(&self) -> Result<Option<&str>> {
        let Some(value) = single(&self.head.headers, &IF_MATCH)? else { return Ok(None) };
        let etag = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match etag {
            Some(etag) if !etag.is_empty() && !etag.contains('"') => Ok(Some(etag)),
            Some(_) | None => Err(Error::new(Kind::Invalid, "If-Match needs one ETag in double quotes")
                .hint("send the etag of the last answer, as in `If-Match: \"12\"`")),
        }
    }

    /// The page of a list that is asked for.
    pub(super) fn page(&self) -> Result<PageWanted> {
        let size =
            self.query("page_size", number)?.map_or(DEFAULT_PAGE, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if !(1..=MAX_PAGE).contains(&size) {
            return Err(Error::new(Kind::Invalid, format!("page_size is 1 to {MAX_PAGE}")));
        }
        Ok(PageWanted { size, after: self.query("page_token", untoken)? })
    }
}

/// Whether a request may be the repetition of a change.
pub(super) fn may_repeat(row: &RouteRow, headers: &HeaderMap) -> bool {
    row.is_change() && headers.contains_key(&IDEMPOTENCY_KEY)
}

/// What recognises a repetition of a change: method, address, condition and body. None for what is no change.
pub(super) fn idempotency(row: &RouteRow, head: &Parts, body: &[u8]) -> Result<Idempotency> {
    if !may_repeat(row, &head.headers) {
        return Ok(Idempotency::default());
    }
    let key = single(&head.headers, &IDEMPOTENCY_KEY)?;
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let condition = single(&head.headers, &IF_MATCH)?.unwrap_or_default();
    let parts = [head.method.as_str(), " ", target, "\n", condition, "\n"];
    Idempotency::new(key, &[parts.concat().as_bytes(), body])
}

impl PageWanted {
    /// The last item of the page before.
    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| not_a_token())).transpose()
    }

    /// The page of `items`, which are in the order of `name`, and the token of the next one.
    pub(super) fn cut<T, N: Ord + FromStr + Display>(
        &self,
        items: impl IntoIterator<Item = T>,
        name: impl Fn(&T) -> N,
    ) -> Result<(Vec<T>, Option<String>)> {
        let after: Option<N> = self.after()?;
        let mut rest = items.into_iter().filter(|item| after.as_ref().is_none_or(|after| name(item) > *after));
        let page: Vec<T> = rest.by_ref().take(self.size).collect();
        let next = rest.next().and_then(|_| page.last()).map(|last| token(&name(last)));
        Ok((page, next))
    }
}

/// The opaque token of the page after `last`.
pub(super) fn token(last: &impl Display) -> String {
    URL_SAFE_NO_PAD.encode(last.to_string())
}

fn untoken(text: &str) -> Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| not_a_token())?;
    String::from_utf8(bytes).map_err(|_| not_a_token())
}

fn not_a_token() -> Error {
    Error::new(Kind::Invalid, "this is no page_token of this list").hint("send next_page_token of the page before")
}

/// A whole number, written plainly.
pub(super) fn number(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| Error::new(Kind::Invalid, "this is not a whole number"))
}

/// A version, in its one spelling.
pub(super) fn version(text: &str) -> Result<Version> {
    let none = || Error::new(Kind::Invalid, "a version is a whole number from 1");
    let number = number(text).ok().and_then(|number| u32::try_from(number).ok()).ok_or_else(none)?;
    if text.starts_with('0') { Err(none()) } else { Version::new(number) }
}

/// The only value of a header.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| Error::new(Kind::Invalid, format!("the header {name} is not ASCII")))
        }
        (Some(_), Some(_)) => Err(Error::new(Kind::Invalid, format!("the header {name} is there twice"))),
    }
}

/// The query, each of whose names the row must know, once.
fn query(row: &RouteRow, head: &Parts) -> Result<Vec<(String, String)>> {
    if head.uri.query().is_none_or(str::is_empty) {
        return Ok(Vec::new());
    }
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&head.uri)
        .map_err(|_| Error::new(Kind::Invalid, "the query cannot be read"))?;
    for (at, (name, _)) in pairs.iter().enumerate() {
        if !row.query.iter().any(|known| known.name == name) {
            let shown: String = name.chars().take(80).collect();
            let known: Vec<_> = row.query.iter().map(|known| known.name).collect();
            let hint =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
            return Err(Error::new(Kind::Invalid, format!("this route has no query parameter {shown:?}")).hint(hint));
        }
        if pairs.iter().take(at).any(|(before, _)| before == name) {
            return Err(Error::new(Kind::Invalid, format!("the query parameter {name} is there twice")));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_one_spelling() {
        assert_eq!(version("17").unwrap().number(), 17);
        for bad in ["", "0", "01", "+1", "-1", "1.0", "1e3", "4294967296", "٣", " 1"] {
            assert_eq!(version(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let names: Vec<Name> = ["a", "b", "c", "d", "e"].iter().map(|name| name.parse().unwrap()).collect();
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let wanted = PageWanted { size: 2, after: after.as_deref().map(|text| untoken(text).unwrap()) };
            let (page, next) = wanted.cut(names.clone(), Clone::clone).unwrap();
            seen.extend(page);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, names);
        let whole = PageWanted { size: 5, after: None }.cut(names.clone(), Clone::clone).unwrap();
        assert_eq!(whole, (names, None));
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        assert!(untoken("!").is_err());
        assert!(untoken("_w").is_err());
        let wanted = PageWanted { size: 2, after: Some("../x".into()) };
        assert_eq!(wanted.after::<Name>().unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_header_counts_only_where_it_is_there_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(single(&headers, &IF_MATCH).unwrap(), None);
        headers.append(IF_MATCH, "\"1\"".parse().unwrap());
        assert_eq!(single(&headers, &IF_MATCH).unwrap(), Some("\"1\""));
        headers.append(IF_MATCH, "\"2\"".parse().unwrap());
        assert!(single(&headers, &IF_MATCH).is_err());
    }
}
