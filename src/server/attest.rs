//! What a verifier of attestations needs of an installation: read from its files, or asked of one of its devices while the service
//! does not run.

use super::root::Root;
use super::{Options, lock, start_workers, stop_workers};
use crate::attestation::endorsement::{Answer, Challenge, certificate_in};
use crate::config::Config;
use crate::device::{TpmChallenge, Worker};
use crate::error::{Error, Kind, Result};
use crate::telemetry::Metrics;
use crate::types::{Name, PublicKey};

/// The public half of the attestation key of a device, for a verifier to pin.
///
/// # Errors
/// `NotFound` where there is no installation, no such device in it, or no such key.
pub fn attestation_key(config: &Config, device: &Name) -> Result<PublicKey> {
    let root = Root::read(&config.data)?;
    let identity = root.devices.get(device);
    let identity = identity.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no device {device}")))?;
    identity.attestation_key.as_ref().map(|own| own.public.clone()).ok_or_else(|| {
        Error::new(Kind::NotFound, format!("device {device} has no attestation key"))
            .hint("end the service; `signet init --upgrade` makes one")
    })
}

/// The certificate of the endorsement key of a TPM, in DER, as its maker put it there.
///
/// # Errors
/// `Conflict` where the service runs, and those of the device.
pub async fn endorsement(config: &Config, options: &Options, device: &Name) -> Result<Vec<u8>> {
    with_device(config, options, device, async |worker| certificate_in(&worker.endorsement().await?)).await
}

/// Has a TPM open a challenge.
///
/// # Errors
/// `Conflict` where the service runs, and those of the device.
pub async fn answer(config: &Config, options: &Options, device: &Name, challenge: &Challenge) -> Result<Answer> {
    let Challenge { credential, seed, .. } = challenge;
    let challenge = TpmChallenge { credential: credential.0.clone(), seed: seed.0.clone() };
    with_device(config, options, device, async |worker| Ok(Answer::new(worker.answer(&challenge).await?.expose())))
        .await
}

/// Works with one device of an installation that is not running.
async fn with_device<T>(
    config: &Config,
    options: &Options,
    device: &Name,
    act: impl AsyncFnOnce(&Worker) -> Result<T>,
) -> Result<T> {
    let locked = lock(&config.data).await?;
    let root = Root::read(&config.data)?;
    let settings = config.devices.get(device);
    let settings =
        settings.ok_or_else(|| Error::new(Kind::NotFound, format!("device {device} is not in the configuration")))?;
    let only = Config { devices: [(device.clone(), settings.clone())].into(), ..config.clone() };
    let workers = start_workers(&only, &root, options, &locked, &Metrics::new())?;
    let worked = async {
        let worker = workers.get(device).ok_or_else(|| Error::internal("a device without a worker"))?;
        worker.settled().await?;
        act(worker).await
    };
    let worked = worked.await;
    stop_workers(&workers).await;
    worked
}
