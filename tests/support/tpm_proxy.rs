//! A wire between the driver and a software TPM that can break: it answers for the TPM, hangs up, or alters an answer.
//!
//! The software TPM speaks plain TPM commands on its data port, one connection each, and something of its own on the
//! next port, which is passed on untouched.

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
    /// The TPM does it; the answer is lost with the connection.
    HangUp,
    /// The TPM does it; one bit of the answer is turned over, counted from its end.
    Flip(usize),
}

/// The wire.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    planned: Arc<Mutex<Vec<(u32, Mishap)>>>,
    last: Arc<AtomicU32>,
}

impl Proxy {
    /// Lays the wire. Its threads end with the test's process.
    pub(crate) fn before(tpm: &Swtpm) -> Self {
        let planned = Arc::new(Mutex::new(Vec::new()));
        let (port, data, control) = loop {
            let port = free_pair();
            let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            if let (Ok(data), Ok(control)) = (bind(port), bind(port + 1)) {
                break (port, data, control);
            }
        };
        let last = Arc::new(AtomicU32::new(0));
        let (behind, plan, seen) = (tpm.port(), Arc::clone(&planned), Arc::clone(&last));
        thread::spawn(move || {
            for client in data.incoming().flatten() {
                let _ = relay(client, behind, &plan, &seen);
            }
        });
        thread::spawn(move || {
            for client in control.incoming().flatten() {
                let _ = pass(&client, behind + 1);
            }
        });
        Self { port, planned, last }
    }

    /// How the driver finds it.
    pub(crate) fn settings(&self, sessions: bool) -> TpmSettings {
        TpmSettings { tcti: format!("swtpm:host=127.0.0.1,port={}", self.port), sessions, anchor_writes_per_day: None }
    }

    /// Plans a mishap for the next commands of this number, one for each time it is planned.
    pub(crate) fn plan(&self, command: u32, mishap: Mishap, times: usize) {
        self.planned.lock().unwrap().extend(std::iter::repeat_n((command, mishap), times));
    }

    /// The number of the last command that went by.
    pub(crate) fn last(&self) -> u32 {
        self.last.load(Ordering::SeqCst)
    }

    /// How many planned mishaps have not happened yet.
    pub(crate) fn left(&self) -> usize {
        self.planned.lock().unwrap().len()
    }

    /// Drops what is still planned.
    pub(crate) fn clear(&self) {
        self.planned.lock().unwrap().clear();
    }
}

fn relay(mut client: TcpStream, behind: u16, plan: &Mutex<Vec<(u32, Mishap)>>, seen: &AtomicU32) -> io::Result<()> {
    while let Some(command) = read_message(&mut client)? {
        let number = u32::from_be_bytes(command[6..10].try_into().unwrap());
        seen.store(number, Ordering::SeqCst);
        let mut planned = plan.lock().unwrap();
        let place = planned.iter().position(|(which, _)| *which == number);
        let mishap = place.map(|place| planned.remove(place).1);
        drop(planned);
        if let Some(Mishap::Answer(code)) = mishap {
            client.write_all(&[&[0x80, 0x01, 0, 0, 0, 10], code.to_be_bytes().as_slice()].concat())?;
            continue;
        }
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, behind))?;
        tpm.write_all(&command)?;
        let Some(mut answer) = read_message(&mut tpm)? else { return Ok(()) };
        match mishap {
            Some(Mishap::HangUp) => return Ok(()),
            Some(Mishap::Flip(from_end)) => {
                let place = answer.len() - from_end;
                answer[place] ^= 1;
            }
            Some(Mishap::Answer(_)) | None => {}
        }
        client.write_all(&answer)?;
    }
    Ok(())
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
