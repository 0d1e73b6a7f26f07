//! A stub resolver: asks the operator's own resolver for addresses, TXT and CAA records ([RFC 1035](https://www.rfc-editor.org/rfc/rfc1035)).
//!
//! It is our own because four kinds of record and one question at a time are all there is to it. Caches, recursion and DNSSEC are
//! the business of the resolver behind it, which should validate and be reached over a network that is trusted.
//!
//! ```text
//! id (2) | flags (2) | counts (4 x 2) | question: name, type, class | records: name, type, class, ttl, length, data
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Failure, FailureKind, Outcome};

/// How long one server may think about one question, by one transport.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// How many aliases lead from a name to what it stands for.
const ALIASES: usize = 8;
/// How many records of an answer are looked at.
const RECORDS: usize = 256;
/// How large a datagram may be: what fits a packet everywhere ([RFC 9715](https://www.rfc-editor.org/rfc/rfc9715)).
const DATAGRAM: u16 = 1232;

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const CAA: u16 = 257;
const INTERNET: u16 = 1;

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

/// One CAA record ([RFC 8659, 4.1](https://www.rfc-editor.org/rfc/rfc8659#section-4.1)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether who does not know the tag must not issue.
    pub critical: bool,
    /// The property, in lower case.
    pub tag: String,
    /// Its value.
    pub value: String,
}

/// An answer, read and not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    id: u16,
    answers: bool,
    truncated: bool,
    code: u8,
    question: Option<(String, u16, u16)>,
    records: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    owner: String,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    Address(IpAddr),
    Alias(String),
    Text(Vec<u8>),
    Caa(CaaRecord),
    Other,
}

impl Resolver {
    /// Asks `servers`, the first one first.
    #[must_use]
    pub const fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// The servers of the text of a `resolv.conf`.
    #[must_use]
    pub fn of_system(text: &str) -> Self {
        let address = |line: &str| {
            let mut words = line.split_whitespace();
            let named = words.next() == Some("nameserver");
            let address = words.next().filter(|_| named)?.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(address, 53))
        };
        Self::new(text.lines().filter_map(address).take(3).collect())
    }

    /// The addresses of a host, of both kinds, IPv6 first.
    pub(super) async fn addresses(&self, name: &str) -> Outcome<Vec<IpAddr>> {
        let (six, four) = tokio::join!(self.ask(name, AAAA), self.ask(name, A));
        // One kind is enough: some networks answer only for one.
        let found = match (six, four) {
            (Err(failure), Err(_)) => return Err(failure),
            (six, four) => six.into_iter().chain(four).flatten(),
        };
        Ok(found
            .filter_map(|data| match data {
                Data::Address(address) => Some(address.to_canonical()),
                Data::Alias(_) | Data::Text(_) | Data::Caa(_) | Data::Other => None,
            })
            .collect())
    }

    /// The TXT records of a name, the strings of each joined.
    pub(super) async fn texts(&self, name: &str) -> Outcome<Vec<Vec<u8>>> {
        let found = self.ask(name, TXT).await?.into_iter();
        Ok(found
            .filter_map(|data| match data {
                Data::Text(text) => Some(text),
                Data::Address(_) | Data::Alias(_) | Data::Caa(_) | Data::Other => None,
            })
            .collect())
    }

    /// The CAA records that count for a name: its own, or those of the nearest name above it that has some
    /// ([RFC 8659, 3](https://www.rfc-editor.org/rfc/rfc8659#section-3)).
    ///
    /// # Errors
    /// Where a server does not answer: then nobody knows whether issuing is forbidden.
    pub async fn caa(&self, name: &str) -> Outcome<Vec<CaaRecord>> {
        let mut rest = Some(name);
        while let Some(name) = rest {
            let found = self.ask(name, CAA).await?.into_iter();
            let set: Vec<_> = found
                .filter_map(|data| match data {
                    Data::Caa(record) => Some(record),
                    Data::Address(_) | Data::Alias(_) | Data::Text(_) | Data::Other => None,
                })
                .collect();
            if !set.is_empty() {
                return Ok(set);
            }
            rest = name.split_once('.').map(|(_, above)| above);
        }
        Ok(Vec::new())
    }

    /// The records of one kind at the end of the aliases of `name`.
    async fn ask(&self, name: &str, kind: u16) -> Outcome<Vec<Data>> {
        let mut name = name.to_owned();
        for _ in 0..ALIASES {
            let message = self.exchange(&name, kind).await?;
            let (found, next) = message.follow(&name);
            if next == name || !found.is_empty() {
                return Ok(found);
            }
            name = next;
        }
        Err(failed(&name, "stands at the end of too many aliases"))
    }

    async fn exchange(&self, name: &str, kind: u16) -> Outcome<Message> {
        let mut last = failed(name, "cannot be looked up: no resolver is configured");
        for server in (0..ROUNDS).flat_map(|_| &self.servers) {
            let mut id = [0; 2];
            if getrandom::fill(&mut id).is_err() {
                break;
            }
            let id = u16::from_be_bytes(id);
            let Some(query) = query(id, name, kind) else { return Err(failed(name, "is no name in DNS")) };
            let fits = |message: &Message| message.fits(id, name, kind);
            let answer = match timeout(PATIENCE, datagram(*server, &query, fits)).await {
                Ok(Ok(message)) if !message.truncated => Ok(message),
                Ok(Ok(_)) => stream(*server, &query, fits).await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            };
            match answer.map(|message| (message.code, message)) {
                // No error, and no such name: which is no records of any kind.
                Ok((0 | 3, message)) => return Ok(message),
                Ok((2, _)) => last = failed(name, "cannot be looked up: the resolver failed"),
                Ok((code, _)) => {
                    last = failed(name, &format!("cannot be looked up: the resolver answers with code {code}"))
                }
                Err(_) => last = failed(name, "cannot be looked up: the resolver does not answer"),
            }
        }
        Err(last)
    }
}

fn failed(name: &str, text: &str) -> Failure {
    Failure::new(FailureKind::Dns, format!("{name} {text}"))
}

/// Waits for the datagram that answers: others are not looked at.
async fn datagram(server: SocketAddr, query: &[u8], fits: impl Fn(&Message) -> bool) -> std::io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The port is drawn by the operating system; only datagrams of this server arrive.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(message) = buffer.get(..length).and_then(Message::parse).filter(&fits) {
            return Ok(message);
        }
    }
}

async fn stream(server: SocketAddr, query: &[u8], fits: impl Fn(&Message) -> bool) -> std::io::Result<Message> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Message::parse(&answer).filter(&fits).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    };
    timeout(PATIENCE, exchange).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

/// A question, with recursion desired and room for answers beyond 512 bytes ([RFC 6891](https://www.rfc-editor.org/rfc/rfc6891)).
fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    for number in [id, 0x0100, 1, 0, 0, 1] {
        bytes.extend(number.to_be_bytes());
    }
    if name.len() > 253 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    // The root, OPT, how much may come, no flags, no options.
    bytes.push(0);
    bytes.extend(41_u16.to_be_bytes());
    bytes.extend(DATAGRAM.to_be_bytes());
    bytes.extend([0; 6]);
    Some(bytes)
}

impl Message {
    /// Reads a message. Records that are cut off end the list where the message says that it is truncated.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let (questions, answers) = (reader.u16()?, reader.u16()?);
        reader.take(4)?;
        let question = match questions {
            0 => None,
            1 => Some((reader.name()?, reader.u16()?, reader.u16()?)),
            _ => return None,
        };
        let truncated = flags & 0x0200 != 0;
        let mut records = Vec::new();
        for _ in 0..usize::from(answers).min(RECORDS) {
            match reader.answer() {
                Some(answer) => records.push(answer),
                None if truncated => break,
                None => return None,
            }
        }
        Some(Self { id, answers: flags & 0x8000 != 0, truncated, code: (flags & 0x0f) as u8, question, records })
    }

    /// Whether this answers that question.
    fn fits(&self, id: u16, name: &str, kind: u16) -> bool {
        let same = |(own, own_kind, class): &(String, u16, u16)| own == name && *own_kind == kind && *class == INTERNET;
        self.answers && self.id == id && self.question.as_ref().is_some_and(same)
    }

    /// What stands at the end of the aliases of `name` in this message, and under which name. What belongs to other names is
    /// left out.
    fn follow(self, name: &str) -> (Vec<Data>, String) {
        let mut name = name.to_owned();
        for _ in 0..ALIASES {
            let alias = self.records.iter().find_map(|answer| match &answer.data {
                Data::Alias(to) if answer.owner == name => Some(to.clone()),
                Data::Alias(_) | Data::Address(_) | Data::Text(_) | Data::Caa(_) | Data::Other => None,
            });
            match alias {
                Some(to) => name = to,
                None => break,
            }
        }
        let own = |answer: Answer| (answer.owner == name && answer.data != Data::Other).then_some(answer.data);
        (self.records.into_iter().filter_map(own).collect(), name)
    }
}

struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A name, in lower case, without the last dot. A pointer leads only backwards, so none leads in a circle.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut reader = Reader { bytes: self.bytes, at: self.at };
        let mut end = None;
        loop {
            let start = reader.at;
            match reader.u8()? {
                0 => break,
                length @ 1..=63 => {
                    let label = reader.take(usize::from(length))?;
                    // A dot within a label would make two labels of it.
                    let plain = |b: &u8| b.is_ascii_graphic() && *b != b'.';
                    if !label.iter().all(plain) || name.len() + label.len() > 254 {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
                }
                high @ 192.. => {
                    let to = usize::from(high & 0x3f) << 8 | usize::from(reader.u8()?);
                    end = end.or(Some(reader.at));
                    if to >= start {
                        return None;
                    }
                    reader.at = to;
                }
                64..=191 => return None,
            }
        }
        self.at = end.unwrap_or(reader.at);
        Some(name)
    }

    fn answer(&mut self) -> Option<Answer> {
        let owner = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        self.take(4)?;
        let length = usize::from(self.u16()?);
        let start = self.at;
        let bytes = self.take(length)?;
        let data = if class == INTERNET { self.data(kind, start, bytes)? } else { Data::Other };
        Some(Answer { owner, data })
    }

    fn data(&self, kind: u16, start: usize, bytes: &[u8]) -> Option<Data> {
        Some(match kind {
            A => Data::Address(<[u8; 4]>::try_from(bytes).ok()?.into()),
            AAAA => Data::Address(<[u8; 16]>::try_from(bytes).ok()?.into()),
            CNAME => {
                let mut reader = Reader { bytes: self.bytes, at: start };
                let name = reader.name()?;
                if reader.at != start + bytes.len() {
                    return None;
                }
                Data::Alias(name)
            }
            TXT => {
                let mut reader = Reader { bytes, at: 0 };
                let mut text = Vec::new();
                while reader.at < bytes.len() {
                    let length = reader.u8()?;
                    text.extend(reader.take(usize::from(length))?);
                }
                Data::Text(text)
            }
            CAA => {
                let mut reader = Reader { bytes, at: 0 };
                let flags = reader.u8()?;
                let length = reader.u8()?;
                let tag = std::str::from_utf8(reader.take(usize::from(length))?).ok()?.to_ascii_lowercase();
                let value = String::from_utf8_lossy(bytes.get(reader.at..)?).into_owned();
                Data::Caa(CaaRecord { critical: flags & 0x80 != 0, tag, value })
            }
            _ => Data::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer to the question of `query`, with the records appended as they are.
    fn answer(query: &[u8], count: u16, records: &[u8]) -> Vec<u8> {
        let question = query.len() - 11;
        let mut bytes = query[..question].to_vec();
        bytes[2..4].copy_from_slice(&[0x81, 0x80]);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes[10..12].copy_from_slice(&[0, 0]);
        bytes.extend(records);
        bytes
    }

    fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [owner, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length, data].concat()
    }

    /// The name of the question.
    const SELF: &[u8] = &[0xc0, 12];

    #[test]
    fn aliases_are_followed_and_strangers_left_out() {
        let query = query(7, "a.test", A).unwrap();
        let records = [
            record(SELF, CNAME, b"\x01b\xc0\x0e"),
            record(b"\x01B\xc0\x0e", A, &[192, 0, 2, 1]),
            record(b"\x01c\xc0\x0e", A, &[10, 0, 0, 1]),
            record(SELF, A, &[10, 0, 0, 2]),
        ]
        .concat();
        let message = Message::parse(&answer(&query, 4, &records)).unwrap();
        assert!(message.fits(7, "a.test", A));
        assert!(!message.fits(8, "a.test", A) && !message.fits(7, "b.test", A) && !message.fits(7, "a.test", AAAA));
        let (found, name) = message.follow("a.test");
        assert_eq!((found, name.as_str()), (vec![Data::Address([192, 0, 2, 1].into())], "b.test"));
    }

    #[test]
    fn texts_are_joined_and_caa_is_read() {
        let query = query(7, "a.test", TXT).unwrap();
        let message = Message::parse(&answer(&query, 1, &record(SELF, TXT, b"\x02ab\x00\x01c"))).unwrap();
        assert_eq!(message.follow("a.test").0, [Data::Text(b"abc".to_vec())]);
        let message = Message::parse(&answer(&query, 1, &record(SELF, CAA, b"\x80\x05Issueca.test; a=b"))).unwrap();
        let caa = CaaRecord { critical: true, tag: "issue".to_owned(), value: "ca.test; a=b".to_owned() };
        assert_eq!(message.follow("a.test").0, [Data::Caa(caa)]);
    }

    #[test]
    fn crooked_answers_are_none() {
        let query = query(7, "a.test", A).unwrap();
        let circle = record(&[0xc0, 24], A, &[1, 2, 3, 4]);
        let bad = [
            circle,
            record(SELF, A, &[1, 2, 3]),
            record(SELF, TXT, b"\x05ab"),
            record(SELF, CNAME, b"\x01b\xc0\x0e\x00"),
            record(b"\x03a.b\x00", A, &[1, 2, 3, 4]),
            vec![],
        ];
        for records in bad {
            assert_eq!(Message::parse(&answer(&query, 1, &records)), None, "{records:?}");
        }
        assert!(super::query(7, "a..test", A).is_none() && super::query(7, &"a".repeat(64), A).is_none());
    }

    #[test]
    fn the_system_names_its_servers() {
        let system =
            Resolver::of_system("# x\nsearch a\nnameserver 192.0.2.1\n nameserver  ::1 \noptions b\nnameserver x\n");
        assert_eq!(system.servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse::<SocketAddr>().unwrap()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Message::parse(&bytes);
        }
    }
}
