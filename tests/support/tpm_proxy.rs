//! A wire between the driver and a software TPM that can break: it answers for the TPM, hangs up, or alters an answer.
//!
//! The software TPM speaks plain TPM commands on its data port, one connection each, and something of its own on the
//! next port, which is passed on untouched.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use signet::device::TpmSettings;

use crate::swtpm::{Swtpm, free_pair};

/// The number of TPM2_Sign.
pub(crate) const SIGN: u32 = 0x15d;
/// The number of TPM2_HMAC.
pub(crate) const HMAC: u32 = 0x155;
/// The number of TPM2_Create.
pub(crate) const CREATE: u32 = 0x153;

/// The number of TPM2_Shutdown.
pub(crate) const SHUTDOWN: u32 = 0x145;

/// What happens to one command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mishap {
    /// The TPM never sees it; this code is the answer.
    Answer(u32),
    /// The TPM never sees it; the connection is closed.
    Cut,
    /// The TPM is restarted before it sees it, as after a power cut: [`Proxy::restarts`].
    Restart,
    /// One bit of the command is turned over, counted from its first.
    SpoilCommand(usize),
    /// The TPM does it; one bit of the answer is turned over, counted from its first.
    SpoilAnswer(usize),
    /// The TPM does it; the answer is lost with the connection.
    HangUp,
    /// The TPM does it; one bit of the answer is turned over, counted from its end.
    Flip(usize),
}

/// Which command a mishap is for.
#[derive(Clone, Copy, Debug)]
enum Which {
    Number(u32),
    /// The one that comes after so many others.
    After(usize),
}

/// A command that went by: its number and length, and the length of the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) number: u32,
    pub(crate) command: usize,
    pub(crate) answer: usize,
}

/// Restarts the TPM.
type Restart = Box<dyn FnMut() + Send>;

/// What the wire knows.
#[derive(Default)]
struct Wire {
    planned: Mutex<Vec<(Which, Mishap)>>,
    last: AtomicU32,
    passed: Mutex<Vec<Passed>>,
    restart: Mutex<Option<Restart>>,
}

/// The wire.
pub(crate) struct Proxy {
    port: u16,
    wire: Arc<Wire>,
}

impl Proxy {
    /// Lays the wire. Its threads end with the test's process.
    pub(crate) fn before(tpm: &Swtpm) -> Self {
        let (port, data, control) = loop {
            let port = free_pair();
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            if let (Ok(data), Ok(control)) = (bind(port), bind(port + 1)) {
                break (port, data, control);
            }
        };
        let wire = Arc::new(Wire::default());
        let (behind, own) = (tpm.port(), Arc::clone(&wire));
        thread::spawn(move || {
            for client in data.incoming().flatten() {
                let _ = relay(client, behind, &own);
            }
        });
        thread::spawn(move || {
            for client in control.incoming().flatten() {
                let _ = pass(&client, behind + 1);
            }
        });
        Self { port, wire }
    }

    /// How the driver finds it.
    pub(crate) fn settings(&self, sessions: bool) -> TpmSettings {
        TpmSettings { tcti: format!("swtpm:host=127.0.0.1,port={}", self.port), sessions, anchor_writes_per_day: None }
    }

    /// How the TPM behind it is restarted.
    pub(crate) fn restarts(&self, by: impl FnMut() + Send + 'static) {
        *self.wire.restart.lock().unwrap() = Some(Box::new(by));
    }

    /// Plans a mishap for the next commands of this number, one for each time it is planned.
    pub(crate) fn plan(&self, command: u32, mishap: Mishap, times: usize) {
        self.wire.planned.lock().unwrap().extend(std::iter::repeat_n((Which::Number(command), mishap), times));
    }

    /// Plans a mishap for the command that comes after so many others from now.
    pub(crate) fn plan_after(&self, others: usize, mishap: Mishap) {
        self.wire.planned.lock().unwrap().push((Which::After(others), mishap));
    }

    /// The number of the last command that went by.
    pub(crate) fn last(&self) -> u32 {
        self.wire.last.load(Ordering::SeqCst)
    }

    /// What went by since it was asked for last.
    pub(crate) fn passed(&self) -> Vec<Passed> {
        std::mem::take(&mut self.wire.passed.lock().unwrap())
    }

    /// How many planned mishaps have not happened yet.
    pub(crate) fn left(&self) -> usize {
        self.wire.planned.lock().unwrap().len()
    }

    /// Drops what is still planned.
    pub(crate) fn clear(&self) {
        self.wire.planned.lock().unwrap().clear();
    }
}

impl Wire {
    /// What is to happen to this command. Those that come after others come one nearer.
    fn next(&self, number: u32) -> Option<Mishap> {
        let mut planned = self.planned.lock().unwrap();
        let place = planned.iter().position(|(which, _)| match which {
            Which::Number(wanted) => *wanted == number,
            Which::After(others) => *others == 0,
        });
        let mishap = place.map(|place| planned.remove(place).1);
        for (which, _) in planned.iter_mut() {
            if let Which::After(others) = which {
                *others = others.saturating_sub(1);
            }
        }
        mishap
    }
}

/// One command: the library opens a connection for each. That its end is not waited for matters: a TPM that is restarted meanwhile may
/// have inherited the other end.
fn relay(mut client: TcpStream, behind: u16, wire: &Wire) -> io::Result<()> {
    if let Some(mut command) = read_message(&mut client)? {
        let number = u32::from_be_bytes(command[6..10].try_into().unwrap());
        wire.last.store(number, Ordering::SeqCst);
        let mishap = wire.next(number);
        match mishap {
            Some(Mishap::Answer(code)) => {
                return client.write_all(&[&[0x80, 0x01, 0, 0, 0, 10], code.to_be_bytes().as_slice()].concat());
            }
            Some(Mishap::Cut) => return Ok(()),
            Some(Mishap::Restart) => {
                if let Some(restart) = wire.restart.lock().unwrap().as_mut() {
                    restart();
                }
            }
            Some(Mishap::SpoilCommand(bit)) => turn(&mut command, bit),
            Some(Mishap::HangUp | Mishap::Flip(_) | Mishap::SpoilAnswer(_)) | None => {}
        }
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, behind))?;
        tpm.write_all(&command)?;
        if let Some(Mishap::SpoilCommand(_)) = mishap {
            // It may say that it is longer than it is.
            tpm.shutdown(Shutdown::Write)?;
        }
        let Some(mut answer) = read_message(&mut tpm)? else { return Ok(()) };
        wire.passed.lock().unwrap().push(Passed { number, command: command.len(), answer: answer.len() });
        match mishap {
            Some(Mishap::HangUp) => return Ok(()),
            Some(Mishap::Flip(from_end)) => {
                let place = answer.len() - from_end;
                answer[place] ^= 1;
            }
            // It may say that it is longer than it is, too.
            Some(Mishap::SpoilAnswer(bit)) => turn(&mut answer, bit),
            Some(Mishap::Answer(_) | Mishap::Cut | Mishap::Restart | Mishap::SpoilCommand(_)) | None => {}
        }
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Turns one bit over; beyond the end there is none.
fn turn(message: &mut [u8], bit: usize) {
    if let Some(byte) = message.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

/// A TPM message says its own length in bytes 2 to 5.
fn read_message(from: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; 10];
    if from.read_exact(&mut message).is_err() {
        return Ok(None);
    }
    let length = u32::from_be_bytes(message[2..6].try_into().unwrap()) as usize;
    message.resize(length.max(10), 0);
    from.read_exact(&mut message[10..])?;
    Ok(Some(message))
}

fn pass(client: &TcpStream, port: u16) -> io::Result<()> {
    let tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    for (mut from, mut to) in [(client.try_clone()?, tpm.try_clone()?), (tpm.try_clone()?, client.try_clone()?)] {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
