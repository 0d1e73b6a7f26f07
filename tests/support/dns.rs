//! A name server that answers what a test tells it, and lies on demand. What does not fit into a datagram it says to be truncated, and
//! answers whole over TCP, as name servers do.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The longest answer in a datagram.
const DATAGRAM: usize = 1232;

/// What a name has.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Address(IpAddr),
    Alias(String),
    Text(String),
    Caa(bool, String, String),
}

/// A name server on a port of its own; it ends with the test.
#[derive(Clone)]
pub(crate) struct Dns {
    address: SocketAddr,
    names: Arc<Mutex<HashMap<String, Vec<Answer>>>>,
    folder: Arc<Mutex<Option<std::path::PathBuf>>>,
    /// How many questions came over TCP.
    streams: Arc<AtomicUsize>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let (socket, listener) = sockets();
        let address = socket.local_addr().unwrap();
        let names: Arc<Mutex<HashMap<String, Vec<Answer>>>> = Arc::default();
        let folder: Arc<Mutex<Option<std::path::PathBuf>>> = Arc::default();
        let streams: Arc<AtomicUsize> = Arc::default();
        answer_streams(listener, names.clone(), streams.clone());
        let (known, more) = (names.clone(), folder.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let mut known = known.lock().unwrap();
                if let Some(folder) = &*more.lock().unwrap() {
                    for file in std::fs::read_dir(folder).unwrap().flatten() {
                        let texts = std::fs::read_to_string(file.path()).unwrap();
                        let texts = texts.lines().map(|line| Answer::Text(line.to_owned())).collect();
                        known.insert(file.file_name().into_string().unwrap(), texts);
                    }
                }
                if let Some(mut answer) = answer(&buffer[..length], &known) {
                    if answer.len() > DATAGRAM {
                        truncate(&mut answer, &buffer[..length]);
                    }
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, names, folder, streams }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many questions came over TCP.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Says all of what `name` has.
    pub(crate) fn set(&self, name: &str, answers: Vec<Answer>) {
        self.names.lock().unwrap().insert(name.to_owned(), answers);
    }

    /// Takes texts from a folder besides, one file for each name and one line for each text: hooks of other programs write it.
    pub(crate) fn read_from(&self, folder: &std::path::Path) {
        *self.folder.lock().unwrap() = Some(folder.to_owned());
    }

    /// A host on this machine.
    pub(crate) fn host(&self, name: &str) {
        self.set(name, vec![Answer::Address([127, 0, 0, 1].into())]);
    }
}

/// A port that is free for both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            return (socket, listener);
        }
    }
}

fn answer_streams(listener: TcpListener, names: Arc<Mutex<HashMap<String, Vec<Answer>>>>, count: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let mut length = [0; 2];
            let _ = stream.read_exact(&mut length);
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            let _ = stream.read_exact(&mut query);
            if let Some(answer) = answer(&query, &names.lock().unwrap()) {
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = stream.write_all(&[&length, answer.as_slice()].concat());
            }
        }
    });
}

/// Head and question of an answer, which says that there is more.
fn truncate(answer: &mut Vec<u8>, query: &[u8]) {
    let question = query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    answer.truncate(12 + question);
    answer[2] |= 2;
    answer[6..8].fill(0);
}

fn answer(query: &[u8], names: &HashMap<String, Vec<Answer>>) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8(query.get(at..at + length)?.to_vec()).ok()?);
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let name = labels.join(".");
    let found = names.get(&name);
    let records: Vec<_> = found.into_iter().flatten().filter_map(|answer| record(answer, kind)).collect();
    let code = if found.is_some() { 0 } else { 3 };
    let mut bytes = query.get(..2)?.to_vec();
    bytes.extend([0x81, 0x80 | code, 0, 1]);
    bytes.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(query.get(12..at + 4)?);
    for (kind, data) in records {
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 1]);
        bytes.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        bytes.extend(data);
    }
    Some(bytes)
}

fn record(answer: &Answer, asked: u16) -> Option<(u16, Vec<u8>)> {
    let (kind, data) = match answer {
        Answer::Address(IpAddr::V4(address)) => (1, address.octets().to_vec()),
        Answer::Address(IpAddr::V6(address)) => (28, address.octets().to_vec()),
        Answer::Alias(to) => {
            let labels =
                to.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
            (5, labels.chain([0]).collect())
        }
        Answer::Text(text) => (16, [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()),
        Answer::Caa(critical, tag, value) => {
            let head = [if *critical { 128 } else { 0 }, u8::try_from(tag.len()).unwrap()];
            (257, [&head, tag.as_bytes(), value.as_bytes()].concat())
        }
    };
    (kind == asked || kind == 5).then_some((kind, data))
}
