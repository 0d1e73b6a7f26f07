//! The service itself: who one is, status, metrics, backup, health, published keys.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::{Answer, Archive, OpenMetrics, Reply, typed};
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{AnchorStatus, DeviceState, Jwk, Released, Served, SinkStatus, WitnessStatus};
use crate::wire::{
    AnchorPosition, AuditKey, DeviceAbility, DeviceStatus, ServerCertificate, SinkPosition, Status, WhoAmI,
    WitnessPosition,
};

/// How long the set of published keys is kept: anybody may ask for it, and making it costs time.
const KEEP: Duration = Duration::from_secs(1);

pub(super) async fn who_am_i(call: Call) -> Result<Released<Reply<WhoAmI>>> {
    let caller = call.service.who_am_i(&call.caller).await?;
    Ok(caller.map(|caller| {
        let (principal, credential) = (caller.principal.to_string(), caller.credential.to_string());
        WhoAmI { principal, groups: caller.groups.to_vec(), credential }.into()
    }))
}

pub(super) async fn status(call: Call) -> Result<Released<Reply<Status>>> {
    let status = call.service.status(&call.caller).await?;
    Ok(status.map(|status| {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: status.instance,
            ready: status.ready,
            problems: status.problems,
            recovered: status.recovered,
            certificate: status.certificate.map(certificate),
            devices: status.devices.into_iter().map(device).collect(),
            keys: status.keys as u64,
            rotations_overdue: status.overdue,
            audit_size: status.audit_size,
            audit_signed: status.audit_signed,
            audit_keys: status
                .audit_keys
                .into_iter()
                .map(|(device, algorithm)| AuditKey { algorithm, device })
                .collect(),
            audit_sinks: status.sinks.into_iter().map(sink).collect(),
            witnesses: status.witnesses.into_iter().map(witness).collect(),
        }
        .into()
    }))
}

fn sink(status: SinkStatus) -> SinkPosition {
    let SinkStatus { name, kind, required, size, behind, rejected, trouble } = status;
    SinkPosition { name, kind: kind.to_owned(), required, size, behind, rejected, problem: trouble }
}

fn certificate(served: Served) -> ServerCertificate {
    let Served { source, certificate } = served;
    let (serial, names, expires) = match certificate {
        Some(shown) => (Some(shown.serial.to_string()), shown.names, Some(shown.until)),
        None => (None, Vec::new(), None),
    };
    ServerCertificate { source: source.to_string(), serial, names, expires }
}

fn witness(status: WitnessStatus) -> WitnessPosition {
    let WitnessStatus { name, required, size, time, trouble, forgot } = status;
    let cosigned = time.and_then(|time| jiff::Timestamp::from_second(i64::try_from(time).ok()?).ok());
    WitnessPosition { name, required, size, cosigned, problem: trouble.or(forgot) }
}

fn device(state: DeviceState) -> DeviceStatus {
    let DeviceState { name, kind, model, serial, up, problem, restarts, breaker, abilities, trial, anchor, software } =
        state;
    let abilities = abilities.into_iter().map(|one| DeviceAbility {
        algorithm: one.algorithm,
        residency: one.residency,
        refusal: one.refusal,
        code: one.code,
        micros: one.micros,
    });
    let abilities = abilities.collect();
    let anchor =
        anchor.map(|AnchorStatus { epoch, behind, trouble, .. }| AnchorPosition { epoch, behind, problem: trouble });
    let (tried, changes) = trial.map(|trial| (Some(trial.tried), trial.changes)).unwrap_or_default();
    let kind = kind.to_owned();
    DeviceStatus {
        name,
        kind,
        model,
        serial,
        up,
        problem,
        restarts,
        breaker: breaker.to_owned(),
        abilities,
        tried,
        changes,
        anchor,
        software,
    }
}

pub(super) async fn metrics(call: Call) -> Result<Released<Reply<OpenMetrics>>> {
    let text = call.service.read_metrics(&call.caller).await?;
    Ok(text.map(|text| super::answer::Text(text).into()))
}

pub(super) async fn backup(call: Call) -> Result<Released<Reply<Archive>>> {
    let archive = call.service.backup(&call.caller).await?;
    Ok(archive.map(|archive| Archive(archive).into()))
}

/// An answer to whoever watches over the process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `live` or `ready`.
    status: &'static str,
}

pub(super) fn live(_: &Api) -> Result<Response<Body>> {
    Health { status: "live" }.respond()
}

/// Anybody may ask, so the answer names neither keys nor devices; `status` does.
pub(super) fn ready(api: &Api) -> Result<Response<Body>> {
    match api.service.ready() {
        Ok(()) => Health { status: "ready" }.respond(),
        Err(error) => Err(Error::new(Kind::Unavailable, "the service is not ready")
            .hint("`signet status` tells why")
            .because(error.chain())),
    }
}

/// Public keys ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517#section-5)).
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JwkSet {
    /// The keys of the domain `jwt`.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<Jwk>,
}

/// The set of published keys, as it was sent last. The lock protects the value, and is held while it is made anew.
#[derive(Debug, Default)]
pub(super) struct Published(Mutex<Option<(Instant, Bytes)>>);

pub(super) fn jwks(api: &Api) -> Result<Response<Body>> {
    let mut last = api.published.0.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh = last.as_ref().filter(|(made, _)| made.elapsed() < KEEP).map(|(_, set)| set.clone());
    let set = match fresh {
        Some(set) => set,
        None => {
            let set = published(api)?;
            *last = Some((Instant::now(), set.clone()));
            set
        }
    };
    let mut response = typed(Body::from(set), "application/json");
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    Ok(response)
}

fn published(api: &Api) -> Result<Bytes> {
    let mut keys = Vec::new();
    for (key, version) in api.service.published_keys() {
        keys.push(Jwk::new(key.record.algorithm, &version.public_key()?)?);
    }
    let set = serde_json::to_vec(&JwkSet { keys }).map_err(|e| Error::internal(format!("writing keys: {e}")))?;
    Ok(set.into())
}
