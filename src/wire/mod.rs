//! The request and response bodies of the native API: what stands between client and service.
//!
//! Bytes are standard base64 with padding ([RFC 4648](https://www.rfc-editor.org/rfc/rfc4648#section-4)); times are RFC 3339 in UTC; periods are
//! written like `90d`. A request with an unknown field is refused.

mod acme;
mod base64;
mod certificates;
mod crypto;
mod keys;
mod secret_text;
mod system;

pub use self::acme::*;
pub use self::base64::{Base64, SecretBase64};
pub use certificates::*;
pub use crypto::*;
pub use keys::*;
pub use secret_text::SecretText;
pub use system::*;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `https://signet.dev/problems/CODE`: the page of `docs/status-codes.md` that explains it.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, again.
    pub status: u16,
    /// The stable word for programs, such as `not_found`.
    pub code: String,
    /// What went wrong.
    pub title: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The request, as in the header `Request-Id` and the audit log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items, in order of their names.
    pub items: Vec<T>,
    /// Send it as `page_token` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The outcome of one item of a batch: exactly one of the two is there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ItemResult<T> {
    /// What it gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<T>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ItemError>,
}

/// Why one item of a batch failed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ItemError {
    /// The stable word for programs.
    pub code: String,
    /// What went wrong.
    pub title: String,
}

/// Up to 1,000 requests of one kind with one key, answered one by one in their order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch<T> {
    /// The requests.
    pub items: Vec<T>,
}

/// The answers to a [`Batch`].
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchResults<T> {
    /// One per request, in the same order.
    pub results: Vec<ItemResult<T>>,
}
