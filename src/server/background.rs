//! What runs beside the requests: heads of the log, the scheduler, tidying.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at};

use super::Options;
use super::tls::Certificate;
use crate::audit::Log;
use crate::config::Config;
use crate::device::Worker;
use crate::keyring::Scheduler;
use crate::service::{Heads, Service};
use crate::types::Name;

/// How often the log is looked at and, where there is something new, a head of it signed.
const HEADS: Duration = Duration::from_secs(1);
/// How often all of the log is read again.
const SCRUB: Duration = Duration::from_secs(600);
/// How often certificates that end soon are looked at, or seldomer: see [`REST`].
const MEASURE: Duration = Duration::from_secs(60);
/// How often it is looked whether a device was opened anew, so that what it can do is found out again.
const TRIALS: Duration = Duration::from_secs(30);
/// How often old outcomes of idempotency keys are removed.
const TIDY: Duration = Duration::from_secs(3600);

/// Stores the hashes of the log where they are not: that may take as long as reading all of it.
fn tend(log: &Log) -> impl Future<Output = ()> + Send + use<> {
    let tended = log.tend();
    async move {
        if let Err(error) = tended.await {
            tracing::warn!(cause = error.chain(), "the hashes of the audit log are not stored");
        }
    }
}

/// Starts the jobs; each ends when `stop` says so.
pub(super) fn start(
    service: &Arc<Service>,
    certificate: &Arc<Certificate>,
    heads: &Arc<Heads>,
    log: &Arc<Log>,
    config: &Config,
    options: &Options,
    stop: &watch::Sender<bool>,
) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    tasks.push(every(HEADS, stop, {
        let (service, heads, log) = (service.clone(), heads.clone(), log.clone());
        move || {
            let (service, heads, log) = (service.clone(), heads.clone(), log.clone());
            async move {
                // What could not be recorded when it was made; the ledger has said so.
                let _ = service.settle().await;
                if let Err(error) = heads.sign().await {
                    tracing::warn!(cause = error.chain(), "no head of the audit log could be signed");
                }
                if let Err(error) = service.checkpoint().await {
                    tracing::warn!(cause = error.chain(), "the state of the store could not be anchored");
                }
                tokio::spawn(tend(&log));
                for sink in log.sinks() {
                    let (name, up) = (sink.name.as_str(), sink.trouble.is_none());
                    service.metrics().audit_sink(name, up, sink.behind, sink.rejected);
                }
                service.metrics().audit(
                    log.health().is_ok(),
                    log.size(),
                    log.last_head().map_or(0, |head| head.size()),
                );
            }
        }
    }));
    tasks.push(every(HEADS, stop, {
        let service = service.clone();
        move || {
            let service = service.clone();
            // One that takes its time holds up no head, and no other one.
            async move { service.follow().await }
        }
    }));
    tasks.push(every(SCRUB, stop, {
        let log = log.clone();
        move || {
            let log = log.clone();
            async move {
                if let Err(error) = log.scrub().await {
                    tracing::error!(cause = error.chain(), "the audit log does not hold");
                }
            }
        }
    }));
    tasks.extend(
        service.keyring().devices().iter().filter_map(|(name, worker)| record_events(service, name, worker, stop)),
    );
    if options.unattended {
        // The first requests after a start come before it.
        tasks.push(every_after(TRIALS, TRIALS, stop, {
            let keyring = service.keyring();
            move || {
                let keyring = keyring.clone();
                async move { keyring.record_trials().await }
            }
        }));
        let scheduler = Arc::new(Scheduler::new(service.keyring()));
        let authority = service.authority();
        tasks.push(every(config.tick.as_duration(), stop, move || {
            let (scheduler, authority) = (scheduler.clone(), authority.clone());
            async move {
                scheduler.tick().await;
                authority.tick().await;
            }
        }));
        tasks.push(every(config.tick.as_duration(), stop, {
            let status = service.revocation_status();
            move || {
                let status = status.clone();
                async move { status.tick().await }
            }
        }));
        tasks.push(every(config.tick.as_duration(), stop, {
            let certificate = certificate.clone();
            move || {
                let certificate = certificate.clone();
                async move { certificate.tick().await }
            }
        }));
        tasks.push(every(MEASURE, stop, {
            let (authority, pace) = (service.authority(), Arc::new(Pace::default()));
            move || {
                let (authority, pace) = (authority.clone(), pace.clone());
                async move {
                    authority.measure();
                    pace.run(authority.look_at_ends()).await;
                }
            }
        }));
        tasks.push(every(config.tick.as_duration(), stop, {
            let (authority, stop) = (service.authority(), stop.clone());
            move || {
                let (authority, mut ending) = (authority.clone(), stop.subscribe());
                async move {
                    // A receiver that takes its time holds up nobody, the end of the service neither: it is told after the next start.
                    tokio::select! {
                        _ = ending.wait_for(|stop| *stop) => {}
                        () = authority.send_notices() => {}
                    }
                }
            }
        }));
        tasks.push(every(TIDY, stop, {
            let service = service.clone();
            move || {
                let service = service.clone();
                async move {
                    if let Err(error) = service.forget_outcomes().await {
                        tracing::warn!(cause = error.chain(), "old outcomes could not be removed");
                    }
                    if let Err(error) = service.acme_tidy().await {
                        tracing::warn!(cause = error.chain(), "old orders could not be removed");
                    }
                }
            }
        }));
        tasks.push(every(TIDY, stop, {
            let (service, stop) = (service.clone(), stop.clone());
            move || {
                let (service, ending) = (service.clone(), stop.subscribe());
                async move {
                    // An act that has begun is finished; what is due beside it waits for the next start.
                    while !*ending.borrow() {
                        match service.retain_audit().await {
                            Ok(true) => {}
                            Ok(false) => return,
                            Err(error) => {
                                let cause = error.chain();
                                return tracing::warn!(cause, "old records of the audit log could not be removed");
                            }
                        }
                    }
                }
            }
        }));
    }
    tasks
}

/// Puts on record what becomes of a device.
fn record_events(
    service: &Arc<Service>,
    name: &Name,
    worker: &Worker,
    stop: &watch::Sender<bool>,
) -> Option<JoinHandle<()>> {
    let mut events = worker.events()?;
    let (service, name, mut ending) = (service.clone(), name.clone(), stop.subscribe());
    Some(tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                _ = ending.wait_for(|stop| *stop) => return,
                event = events.recv() => event,
            };
            let Some(event) = event else { return };
            if let Err(error) = service.record_device(&name, &event).await {
                tracing::warn!(device = %name, cause = error.chain(), "an event of the device is not in the audit log");
            }
        }
    }))
}

/// How much longer than a look at all ends the pause after it is: with a million certificates a look takes seconds.
const REST: u32 = 100;

/// Keeps a job to a small part of the time.
#[derive(Default)]
struct Pace(Mutex<Option<(Instant, Duration)>>);

impl Pace {
    async fn run(&self, job: impl Future<Output = ()>) {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|(ended, took)| ended.elapsed() < took * REST) {
            return;
        }
        let began = Instant::now();
        job.await;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), began.elapsed()));
    }
}

/// Runs `job` at once and then again and again until `stop`; a run that has begun ends in peace.
fn every<F, J>(period: Duration, stop: &watch::Sender<bool>, job: F) -> JoinHandle<()>
where
    F: Fn() -> J + Send + 'static,
    J: Future<Output = ()> + Send + 'static,
{
    every_after(Duration::ZERO, period, stop, job)
}

/// As [`every`], the first time after `delay`.
fn every_after<F, J>(delay: Duration, period: Duration, stop: &watch::Sender<bool>, job: F) -> JoinHandle<()>
where
    F: Fn() -> J + Send + 'static,
    J: Future<Output = ()> + Send + 'static,
{
    let mut ending = stop.subscribe();
    tokio::spawn(async move {
        let mut ticks = interval_at(tokio::time::Instant::now() + delay, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ending.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            job().await;
        }
    })
}
