//! Temporary listener.
use crate::api::Peer;
use crate::auth::certificate::Claims;
use crate::error::{Error, Result};
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
pub fn self_signed(names: &[String], _: &crate::types::Clock) -> Result<SelfMade> {
    let e = |e: rcgen::Error| Error::internal(e.to_string());
    let ca_key = rcgen::KeyPair::generate().map_err(e)?;
    let mut ca = rcgen::CertificateParams::new(vec![]).map_err(e)?;
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "signet ca");
    let ca_cert = ca.self_signed(&ca_key).map_err(e)?;
    let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
    let key = rcgen::KeyPair::generate().map_err(e)?;
    let leaf = rcgen::CertificateParams::new(names.to_vec()).map_err(e)?.signed_by(&key, &issuer).map_err(e)?;
    Ok(SelfMade {
        authority: ca_cert.pem(),
        chain: leaf.pem(),
        key: crate::types::SecretBytes::new(key.serialize_pem().into_bytes()),
    })
}
/// s
/// # Errors
/// s
pub fn tls_config(chain: &[u8], key: &crate::types::SecretBytes, _: Option<&[u8]>) -> Result<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    let certs = rustls::pki_types::CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::internal(e.to_string()))?;
    let key =
        rustls::pki_types::PrivateKeyDer::from_pem_slice(key.expose()).map_err(|e| Error::internal(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut c = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|e| Error::internal(e.to_string()))?;
    c.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(c)
}
/// s
/// # Errors
/// s
pub async fn serve(
    l: tokio::net::TcpListener,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    app: axum::Router,
    _: Limits,
    _: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    tokio::pin!(shutdown);
    loop {
        let (s, a) = tokio::select! { () = &mut shutdown => return Ok(()), r = l.accept() => match r { Ok(r) => r, Err(_) => continue } };
        let (tls, app) = (tls.load_full(), app.clone());
        tokio::spawn(async move {
            let _ = s.set_nodelay(true);
            let Ok(s) = tokio_rustls::TlsAcceptor::from(tls).accept(s).await else { return };
            let peer = Peer { address: a.ip(), certificate: None::<Arc<Claims>> };
            let svc = hyper::service::service_fn(move |mut r: http::Request<hyper::body::Incoming>| {
                r.extensions_mut().insert(peer.clone());
                let app = app.clone();
                async move { tower::ServiceExt::oneshot(app, r.map(axum::body::Body::new)).await }
            });
            let _ = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(s), svc)
                .await;
        });
    }
}
