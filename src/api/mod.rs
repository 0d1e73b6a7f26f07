//! stub
use std::sync::Arc;
/// r
pub fn router(_: Arc<crate::service::Service>) -> axum::Router {
    axum::Router::new()
}
