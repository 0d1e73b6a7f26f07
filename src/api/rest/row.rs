//! One row of the table of routes: what the router, the OpenAPI document and the tests are made from.
//!
//! A handler of a closed route takes a [`Call`], and a `Call` has a `Caller`: it cannot be registered without
//! authentication. The types of body and answer are those of the handler, so the document cannot say others.

use std::fmt;

use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use super::Api;
use super::answer::{Answer, Reply, respond};
use super::body::json;
use super::call::Call;
use super::problem::Failure;
use crate::error::Result;
use crate::service::Released;
use crate::types::Action;

/// One route.
pub struct RouteRow {
    /// The method.
    pub method: Method,
    /// The path, with names in braces.
    pub path: &'static str,
    /// The actions that policies decide on, one of which a call is.
    pub actions: &'static [Action],
    /// What it does, in one line.
    pub summary: &'static str,
    /// The query parameters; others are refused.
    pub query: &'static [Parameter],
    /// Headers beyond those of every route.
    pub headers: &'static [Parameter],
    /// The most bytes of a body; 0 for a route that takes none.
    pub body_limit: usize,
    /// Whether the body may be left out.
    pub optional_body: bool,
    /// The body.
    pub request: Option<Shape>,
    /// What a success answers.
    pub response: Content,
    /// The status of a success.
    pub success: StatusCode,
    /// Method and path, for the record of a refusal.
    pub(super) what: String,
    pub(super) endpoint: Endpoint,
}

impl RouteRow {
    /// Whether it is a change, which an idempotency key makes safe to repeat.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.headers.iter().any(|header| header.name == IDEMPOTENT.name)
    }

    /// Whether it needs no credential.
    #[must_use]
    pub const fn open(&self) -> bool {
        matches!(self.endpoint, Endpoint::Open(_))
    }
}

impl fmt::Debug for RouteRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A query parameter or a header.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// `string` or `integer`.
    pub kind: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it must be there.
    pub required: bool,
}

/// The header of changes.
pub(super) const IDEMPOTENT: Parameter = Parameter {
    name: "Idempotency-Key",
    kind: "string",
    about: "1 to 128 printable ASCII characters: a repetition with the same key and body is answered by what came of the first",
    required: false,
};

/// Media type and schema of a body.
#[derive(Clone, Debug)]
pub enum Content {
    /// JSON of that shape.
    Json(Shape),
    /// Something else.
    Other(&'static str),
    /// No body.
    Nothing,
}

impl Content {
    pub(super) const fn json<T: ToSchema>() -> Self {
        Self::Json(Shape::of::<T>())
    }
}

/// The schema of a type, when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub(super) type_name: fn() -> &'static str,
    pub(super) schema: fn() -> RefOr<Schema>,
    pub(super) parts: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Shape {
    pub(super) const fn of<T: ToSchema>() -> Self {
        Self { type_name: std::any::type_name::<T>, schema: T::schema, parts: T::schemas }
    }
}

/// Answers a stranger.
pub(super) type Open = fn(&Api) -> Result<Response<Body>>;
/// Answers somebody who is known.
pub(super) type Closed = Box<dyn Fn(Call) -> BoxFuture<'static, Result<Response<Body>, Failure>> + Send + Sync>;

/// Who may call.
pub(super) enum Endpoint {
    Open(Open),
    Closed(Closed),
}

/// A row whose handler is still missing.
pub(super) struct Draft {
    method: Method,
    path: &'static str,
    summary: &'static str,
    actions: &'static [Action],
    query: &'static [Parameter],
    headers: &'static [Parameter],
    success: StatusCode,
}

/// Starts a row.
pub(super) const fn route(method: Method, path: &'static str, summary: &'static str) -> Draft {
    Draft { method, path, summary, actions: &[], query: &[], headers: &[], success: StatusCode::OK }
}

impl Draft {
    /// The actions that policies decide on.
    pub(super) const fn action(mut self, actions: &'static [Action]) -> Self {
        self.actions = actions;
        self
    }

    pub(super) const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn headers(mut self, headers: &'static [Parameter]) -> Self {
        self.headers = headers;
        self
    }

    pub(super) const fn success(mut self, status: StatusCode) -> Self {
        self.success = status;
        self
    }

    /// A handler without a body.
    pub(super) fn bare<A, F, Future>(self, handler: F) -> RouteRow
    where
        A: Answer,
        F: Fn(Call) -> Future + Copy + Send + Sync + 'static,
        Future: std::future::Future<Output = Result<Released<Reply<A>>>> + Send + 'static,
    {
        let success = self.success;
        let endpoint = Endpoint::Closed(Box::new(move |call| {
            Box::pin(async move { Ok(respond(handler(call).await?, success)?) })
        }));
        self.finish(0, None, A::content(), endpoint)
    }

    /// A handler that needs a JSON body of at most `limit` bytes.
    pub(super) fn json<B, A, F, Future>(self, limit: usize, handler: F) -> RouteRow
    where
        B: DeserializeOwned + ToSchema + Send + 'static,
        A: Answer,
        F: Fn(Call, B) -> Future + Copy + Send + Sync + 'static,
        Future: std::future::Future<Output = Result<Released<Reply<A>>>> + Send + 'static,
    {
        let success = self.success;
        let endpoint = Endpoint::Closed(Box::new(move |call| {
            Box::pin(async move {
                let body = json(call.body())?;
                Ok(respond(handler(call, body).await?, success)?)
            })
        }));
        self.finish(limit, Some(Shape::of::<B>()), A::content(), endpoint)
    }

    /// A handler whose body may be left out, and then says nothing.
    pub(super) fn optional_json<B, A, F, Future>(self, limit: usize, handler: F) -> RouteRow
    where
        B: DeserializeOwned + ToSchema + Default + Send + 'static,
        A: Answer,
        F: Fn(Call, B) -> Future + Copy + Send + Sync + 'static,
        Future: std::future::Future<Output = Result<Released<Reply<A>>>> + Send + 'static,
    {
        let success = self.success;
        let endpoint = Endpoint::Closed(Box::new(move |call| {
            Box::pin(async move {
                let body = if call.body().is_empty() { B::default() } else { json(call.body())? };
                Ok(respond(handler(call, body).await?, success)?)
            })
        }));
        RouteRow { optional_body: true, ..self.finish(limit, Some(Shape::of::<B>()), A::content(), endpoint) }
    }

    /// A handler for strangers.
    pub(super) fn open(self, response: Content, handler: Open) -> RouteRow {
        self.finish(0, None, response, Endpoint::Open(handler))
    }

    fn finish(self, body_limit: usize, request: Option<Shape>, response: Content, endpoint: Endpoint) -> RouteRow {
        let Self { method, path, summary, actions, query, headers, success } = self;
        let what = format!("{method} {path}");
        RouteRow {
            method,
            path,
            actions,
            summary,
            query,
            headers,
            body_limit,
            optional_body: false,
            request,
            response,
            success,
            what,
            endpoint,
        }
    }
}
