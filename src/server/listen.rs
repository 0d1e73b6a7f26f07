//! stub
use crate::error::Result;
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use std::sync::Arc;
/// l
#[derive(Clone, Debug, Default)]
pub struct Limits {}
/// s
#[derive(Debug)]
pub struct SelfMade {
    /// a
    pub authority: String,
    /// c
    pub chain: String,
    /// k
    pub key: crate::types::SecretBytes,
}
/// s
/// # Errors
/// s
pub fn self_signed(_: &[String], _: &crate::types::Clock) -> Result<SelfMade> {
    Err(crate::error::Error::internal("stub"))
}
/// s
/// # Errors
/// s
pub fn tls_config(_: &[u8], _: &crate::types::SecretBytes, _: Option<&[u8]>) -> Result<rustls::ServerConfig> {
    Err(crate::error::Error::internal("stub"))
}
/// s
/// # Errors
/// s
pub async fn serve(
    _: tokio::net::TcpListener,
    _: Arc<ArcSwap<rustls::ServerConfig>>,
    _: axum::Router,
    _: Limits,
    _: Metrics,
    _: impl Future<Output = ()>,
) -> Result<()> {
    Ok(())
}
