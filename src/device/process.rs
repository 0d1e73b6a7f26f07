//! The worker process: `signet device-worker`.
//!
//! Its standard input is the control socket. The first frame there opens the device and brings the other sockets along: one
//! per owner thread, a guard that is only held, and a life line that ends when the front ends. Each thread owns one socket and one session, reads jobs,
//! does them in order and answers: the socket is the queue, and no lock stands between two threads. A job whose deadline has
//! passed is answered `Expired` without asking the device.
//!
//! The process ends when its control socket ends. It never logs to standard output, and prints nothing secret.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_bytes::ByteBuf;

use super::frame::{Answer, Decoder, Job, Reply, Request, encode, monotonic};
use super::{Class, Device, Driver, Fault, Identity, Settings};
use crate::confine::confine_worker;
use crate::error::{Error, Kind, Result};
use crate::types::{Role, SecretBytes};

/// The most sockets that come with the first frame.
pub(super) const MAX_SOCKETS: usize = 35;
/// Answers to quick jobs are sent together while the device is quicker than this.
const LINGER: Duration = Duration::from_micros(150);
/// How long an orderly end may take once the front is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves one device until the control socket ends.
///
/// # Errors
/// Where it was not started by the front, or the socket breaks.
pub fn run() -> Result<()> {
    // A panic in one thread must not leave a half-alive worker: the front replaces a dead one.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(std::io::stderr(), "signet device-worker: {panic}");
        die();
    }));
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| not_a_worker(&e.to_string()))?;
    let control = UnixStream::from(stdin);
    let (mut decoder, mut sockets) = receive_first(&control)?;
    let first = first_request(&control, &mut decoder)?;
    let (id, Request { job: Job::Open { settings, identity, insist }, .. }) = first else {
        return Err(not_a_worker("the first frame does not open a device"));
    };
    // Before there is a second thread, and before a library is loaded.
    confine_worker(settings.network())?;
    watch_life(sockets.pop().ok_or_else(|| not_a_worker("no life line came along"))?);
    // The lock of the front, where it gave one: held until the very end, so that no second front looks at the device while
    // this process may still change it.
    let _guard = sockets.pop().ok_or_else(|| not_a_worker("no guard came along"))?;
    let opened = open(&settings, identity.as_deref(), insist);
    let (reply, driver) = match opened {
        Ok(driver) => (Ok(Answer::Done), Some(driver)),
        Err(fault) => (Err(fault), None),
    };
    let mut out = Vec::new();
    encode(id, &reply, &mut out)?;
    (&control).write_all(&out).map_err(|e| Error::internal(format!("control socket: {e}")))?;
    let Some(driver) = driver else { return Ok(()) };
    serve_all(driver.as_ref(), control, decoder, sockets);
    driver.shutdown();
    Ok(())
}

fn not_a_worker(why: &str) -> Error {
    Error::new(Kind::Invalid, format!("this process was not started by the service: {why}"))
        .hint("`signet serve` starts its device workers by itself; do not run this by hand")
}

/// Reads the beginning of the first frame, and the sockets that come with it.
fn receive_first(control: &UnixStream) -> Result<(Decoder, Vec<UnixStream>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .map_err(|e| not_a_worker(&e.to_string()))?;
    let fds: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|part| if let RecvAncillaryMessage::ScmRights(rights) = part { Some(rights) } else { None })
        .flatten()
        .collect();
    let mut decoder = Decoder::default();
    decoder.push(bytes.get_mut(..message.bytes).unwrap_or_default());
    Ok((decoder, fds.into_iter().map(UnixStream::from).collect()))
}

fn first_request(mut control: &UnixStream, decoder: &mut Decoder) -> Result<(u64, Request)> {
    let mut bytes = [0; 4096];
    loop {
        if let Some(request) = decoder.next()? {
            return Ok(request);
        }
        match control.read(&mut bytes) {
            Ok(0) | Err(_) => return Err(not_a_worker("the first frame is cut off")),
            Ok(n) => decoder.push(bytes.get_mut(..n).unwrap_or_default()),
        }
    }
}

fn open(settings: &Settings, identity: Option<&Identity>, insist: bool) -> Result<Box<dyn Driver>, Fault> {
    match settings {
        Settings::Pkcs11(settings) => Ok(Box::new(super::pkcs11::open_by(settings, identity, insist)?)),
        #[cfg(feature = "tpm")]
        Settings::Tpm(settings) => Ok(Box::new(super::tpm::open(settings, identity)?)),
        #[cfg(not(feature = "tpm"))]
        Settings::Tpm(_) => {
            Err(Fault::new(Class::Config, "this build of signet has no TPM driver")
                .hint("build it with the feature `tpm`"))
        }
    }
}

/// Ends this process when the front has ended, and an orderly end did not do it in time: a library may hang when it is
/// opened, used or closed, and must not keep alive an orphan that holds the PIN.
fn watch_life(life: UnixStream) {
    thread::spawn(move || {
        while let Err(error) = (&life).read(&mut [0]) {
            if error.kind() != std::io::ErrorKind::Interrupted {
                break;
            }
        }
        let (_silent, nothing) = mpsc::channel::<()>();
        let _ = nothing.recv_timeout(LAST_WORDS);
        die();
    });
}

/// The end that nothing can stop, and that leaves no core file: this process holds the PIN.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort();
}

/// Runs one thread per socket, and the control socket on this one, until that ends.
fn serve_all(driver: &dyn Driver, control: UnixStream, decoder: Decoder, lanes: Vec<UnixStream>) {
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(move || Lane::new(driver).serve(&lane, Decoder::default()));
        }
        Lane::new(driver).serve(&control, decoder);
    });
}

/// One thread's session, made when the first job comes and made again after a failure.
struct Lane<'d> {
    driver: &'d dyn Driver,
    device: Option<Box<dyn Device>>,
}

impl<'d> Lane<'d> {
    const fn new(driver: &'d dyn Driver) -> Self {
        Self { driver, device: None }
    }

    /// Does the jobs of `socket` until it ends.
    fn serve(&mut self, mut socket: &UnixStream, mut decoder: Decoder) {
        let (mut bytes, mut out) = (vec![0; 64 * 1024], Vec::new());
        let mut sent = Instant::now();
        loop {
            // 1. What was asked already. Answers wait for the next one while all of them are quick.
            let Ok(next) = decoder.next::<Request>() else { return };
            let hold = next.as_ref().is_some_and(|(_, request)| request.job.is_quick()) && sent.elapsed() < LINGER;
            if !out.is_empty() && !hold {
                if socket.write_all(&out).is_err() {
                    return;
                }
                zeroize::Zeroize::zeroize(&mut out);
                sent = Instant::now();
            }
            if let Some((id, request)) = next {
                let reply = self.answer(request);
                if encode(id, &reply, &mut out).is_err() {
                    let fault = Fault::new(Class::Internal, "the answer is too large for a frame");
                    let _ = encode(id, &Reply::Err(fault), &mut out);
                }
                continue;
            }
            // 2. What is asked next.
            match socket.read(&mut bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(n) => decoder.push(bytes.get_mut(..n).unwrap_or_default()),
            }
            sent = Instant::now();
        }
    }

    fn answer(&mut self, Request { deadline, job }: Request) -> Reply {
        if monotonic() > deadline {
            return Err(Fault::new(Class::Expired, "the device did not get to this in time"));
        }
        if matches!(job, Job::Enrol) {
            return self.driver.enrol().map(|identity| Answer::Enrolled(Box::new(identity)));
        }
        let device = match &mut self.device {
            Some(device) => device,
            None => self.device.insert(self.driver.session()?),
        };
        perform(device.as_mut(), job)
    }
}

fn perform(device: &mut dyn Device, job: Job) -> Reply {
    match job {
        Job::Open { .. } | Job::Enrol => Err(Fault::new(Class::Internal, "the device is open already")),
        Job::Describe => device.describe().map(Answer::Described),
        Job::Generate(spec) => device.generate(&spec).map(Answer::Generated),
        Job::Use { key, inputs } => {
            let mut one = |input: &ByteBuf| match key.algorithm.role() {
                Role::Sign => device.sign(&key, input),
                Role::Mac => device.mac(&key, input),
                Role::Agree => device.agree(&key, input),
                Role::Decrypt => device.decrypt(&key, input),
                Role::Decapsulate => device.decapsulate(&key, input),
                Role::Cipher => device.cipher(&key, input),
            };
            // A single failure is the failure of the job, so that the front can do it again.
            if let [input] = inputs.as_slice() {
                return one(input).map(|result| Answer::Used(vec![Ok(SecretBytes::new(result))]));
            }
            Ok(Answer::Used(inputs.iter().map(one).map(|result| result.map(SecretBytes::new)).collect()))
        }
        Job::Destroy(key) => device.destroy(&key).map(|()| Answer::Done),
        Job::Forget { id, version } => device.forget(id, version).map(|()| Answer::Done),
        Job::Random(length) => device.random(length).map(Answer::Random),
        Job::Health(challenge) => device.health(&challenge).map(Answer::Health),
        Job::Attack => device.attack().map(Answer::Attacked),
        Job::Inventory => device.inventory().map(Answer::Inventory),
        Job::MakeAnchor(place) => device.make_anchor(&place).map(|()| Answer::Done),
        Job::ReadAnchor(place) => device.read_anchor(&place).map(Answer::Anchor),
        Job::WriteAnchor(write) => device.write_anchor(&write).map(|()| Answer::Done),
        Job::MakeAttestationKey => device.make_attestation_key().map(Answer::AttestationKey),
        Job::MakeMissingKeks => device.make_missing_keks().map(Answer::Keks),
        Job::OpenTransport => device.open_transport().map(Answer::Transport),
        Job::MakeShared { roles, transports } => device.make_shared(&roles, &transports).map(Answer::Shared),
        Job::PassOnShared { transport, officer } => {
            device.pass_on_shared(&transport, &officer).map(|keks| Answer::Shared(vec![keks]))
        }
        Job::TakeShared(keks) => device.take_shared(&keks).map(Answer::Keks),
        Job::Endorsement => device.endorsement().map(Answer::Endorsement),
        Job::Pcrs(wanted) => device.pcrs(wanted).map(Answer::Pcrs),
        Job::Challenge(challenge) => device.answer(&challenge).map(Answer::Random),
        Job::Attest(wanted) => device.attest(&wanted).map(|evidence| Answer::Attested(Box::new(evidence))),
    }
}
