//! HTTP/2 spoken by hand, and badly: what one peer may cost, and that another one does not notice.

#![expect(clippy::indexing_slicing, clippy::print_stdout, reason = "a test may stop, and says what it measured")]

use std::convert::Infallible;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use signet::server::listen::Limits;

use crate::{Server, client_config, http2, quick};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;

/// GO_AWAY for a peer that asks too much.
const ENHANCE_YOUR_CALM: u32 = 11;

/// More than any abuse may send before it is stopped: what it sends waits in the buffers of sockets, some MiB.
const MOST_SENT: usize = 48 << 20;
/// More than any abuse may cost, the buffers of the one who does it included.
const MOST_MEMORY: usize = 32 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of a request: `GET`, `https`, the path as it is, the authority.
fn request(path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x82, 0x87], text(0x04, path), text(0x01, "localhost")].concat()
}

/// One setting, announced.
fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat())
}

/// The ids of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// A connection that has said no more than that it speaks HTTP/2.
async fn connect(server: &Server) -> (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>) {
    let config = client_config(&server.authority, None, &[b"h2"]);
    let (read, mut write) = split(server.connect(&config.into()).await.unwrap());
    write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    (read, write)
}

/// Frames as they come.
struct Frames {
    read: ReadHalf<TlsStream<TcpStream>>,
    seen: Vec<u8>,
}

impl Frames {
    const fn of(read: ReadHalf<TlsStream<TcpStream>>) -> Self {
        Self { read, seen: Vec::new() }
    }

    /// Kind, stream and payload of the next one; `None` at the end.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        loop {
            if let Some((head, rest)) = self.seen.split_first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    let found = (head[3], stream, rest[..length].to_vec());
                    self.seen.drain(..9 + length);
                    return Some(found);
                }
            }
            // A connection that is cut off ends as well as one that is closed.
            if self.read.read_buf(&mut self.seen).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads until the end, and says why the server went away, where it did say so.
    async fn end(&mut self) -> Option<u32> {
        let mut why = None;
        while let Some((kind, _, payload)) = self.next().await {
            if kind == GO_AWAY {
                why = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        why
    }
}

/// The memory of this process, server and client.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Does something bad while another client is served as ever, and nothing grows.
async fn beside<T>(server: &Server, abuse: impl Future<Output = T>) -> T {
    let (other, before) = (http2(&server.authority), memory());
    let url = format!("https://localhost:{}/who", server.port);
    let asking = async {
        loop {
            let answer = timeout(Duration::from_secs(5), other.get(&url).send()).await;
            assert_eq!(answer.expect("another client waits").unwrap().status(), StatusCode::OK);
        }
    };
    let done = tokio::select! {
        done = abuse => done,
        never = async { asking.await as Infallible } => match never {},
    };
    let grown = memory().saturating_sub(before);
    println!("{grown} bytes more");
    assert!(grown < MOST_MEMORY, "{grown} bytes more");
    done
}

/// Sends `pieces` until the server closes the connection, and says what it said.
async fn flood(server: &Server, pieces: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    let (read, mut write) = connect(server).await;
    let sending = async {
        let mut sent = 0;
        for piece in pieces {
            if write.write_all(&piece).await.and(write.flush().await).is_err() {
                return;
            }
            sent += piece.len();
            assert!(sent < MOST_SENT, "{sent} bytes were taken, and more would be");
        }
        std::future::pending().await
    };
    let mut frames = Frames::of(read);
    let reading = async {
        tokio::select! {
            why = frames.end() => why,
            () = sending => frames.end().await,
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("still open after 20 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_to_be_reset_end_the_connection() {
    let server = Server::start(Limits::default()).await;
    let piece = |breaks: fn(u32) -> Vec<u8>| {
        streams().map(move |stream| [frame(HEADERS, WHOLE, stream, &request("/never")), breaks(stream)].concat())
    };
    let cases: [fn(u32) -> Vec<u8>; 2] = [
        // By the client.
        |stream| frame(RESET, 0, stream, &8_u32.to_be_bytes()),
        // By the server, which must where a window grows beyond 2^31 - 1
        // ([RFC 9113, 6.9.1](https://www.rfc-editor.org/rfc/rfc9113#section-6.9.1)).
        |stream| frame(WINDOW_UPDATE, 0, stream, &(u32::MAX >> 1).to_be_bytes()),
    ];
    for breaks in cases {
        // Many at a time, so that they come before the server has looked at the first.
        let mut one = piece(breaks);
        let pieces = std::iter::from_fn(|| Some(one.by_ref().take(200).flatten().collect()));
        let why = beside(&server, flood(&server, pieces)).await;
        assert!(why.is_none_or(|why| why == ENHANCE_YOUR_CALM), "{why:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_an_end_end_the_connection() {
    let server = Server::start(Limits::default()).await;
    // A header of 4 KiB that is not to be remembered, and nothing at all.
    let header = [&[0x10, 1, b'x', 0x7f, 0x81, 0x1f], [b'y'; 4096].as_slice()].concat();
    for content in [header, Vec::new()] {
        let more = frame(CONTINUATION, 0, 1, &content);
        let begin = frame(HEADERS, END_STREAM, 1, &request("/who"));
        let why = beside(&server, flood(&server, std::iter::once(begin).chain(std::iter::repeat(more)))).await;
        assert!(why.is_none_or(|why| why == ENHANCE_YOUR_CALM), "{why:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_headers_does_not_grow_at_the_wish_of_a_peer() {
    let server = Server::start(Limits::default()).await;
    // 1. A peer that would remember 4 GiB of our headers. We do not take it up on that: an answer would have to begin with
    // the new size of the table, 001 and the number.
    let (read, mut write) = connect(&server).await;
    write.write_all(&setting(1, u32::MAX)).await.unwrap();
    let mut frames = Frames::of(read);
    for stream in streams().take(50) {
        write.write_all(&frame(HEADERS, WHOLE, stream, &request("/who"))).await.unwrap();
        let answer = loop {
            let (kind, of, payload) = frames.next().await.expect("an answer");
            if kind == HEADERS && of == stream {
                break payload;
            }
        };
        assert_ne!(answer[0] >> 5, 1, "another size of the table");
    }
    // 2. A peer that has us remember more than we offered, which is 4,096 bytes.
    let larger = [&[0x3f, 0xe2, 0x1f], request("/who").as_slice()].concat();
    beside(&server, flood(&server, std::iter::once(frame(HEADERS, WHOLE, 1, &larger)))).await;
    // 3. A header that is remembered once and repeated by a byte: 16 KiB of frames that mean 50 MB of headers.
    let mut bomb = [request("/never").as_slice(), &[0x40, 1, b'x', 0x7f, 0x81, 0x1e], &[b'y'; 3968]].concat();
    bomb.resize(16 * 1024, 0xbe);
    let pieces = streams().map(|stream| frame(HEADERS, WHOLE, stream, &bomb)).take(500);
    let (read, mut write) = connect(&server).await;
    let mut frames = Frames::of(read);
    let bombing = async {
        for piece in pieces {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = write.shutdown().await;
    };
    let ((), end) =
        beside(&server, async { tokio::join!(bombing, timeout(Duration::from_secs(20), frames.end())) }).await;
    end.expect("still open after 20 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_little_frames_is_no_way_to_stay() {
    let server = Server::start(quick()).await;
    for little in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), setting(4, 70_000)] {
        // 1. Who asks for nothing else is sent away, however much it talks.
        let piece: Vec<u8> = little.iter().copied().cycle().take(little.len() * 100).collect();
        let (read, mut write) = connect(&server).await;
        let mut frames = Frames::of(read);
        let talking = async { while write.write_all(&piece).await.is_ok() {} };
        let ended = async { timeout(Duration::from_secs(20), async { tokio::join!(talking, frames.end()) }).await };
        beside(&server, ended).await.expect("still open after 20 s");
        // 2. Who does not read the answers is not read any more.
        let (_unread, mut write) = connect(&server).await;
        write.write_all(&frame(HEADERS, WHOLE, 1, &request("/never"))).await.unwrap();
        let talking = async {
            let mut sent = 0;
            while let Ok(Ok(())) = timeout(Duration::from_secs(1), write.write_all(&piece)).await {
                sent += piece.len();
                assert!(sent < MOST_SENT, "{sent} bytes were taken, and more would be");
            }
        };
        beside(&server, talking).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_request_open_may_talk_and_pays_by_itself() {
    let server = Server::start(quick()).await;
    let (read, mut write) = connect(&server).await;
    write.write_all(&frame(HEADERS, WHOLE, 1, &request("/never"))).await.unwrap();
    let piece = frame(PING, 0, 0, &[7; 8]).repeat(100);
    let mut frames = Frames::of(read);
    let (mut pings, mut pongs, begin) = (0_usize, 0_usize, Instant::now());
    let talking = async {
        while begin.elapsed() < Duration::from_secs(2) {
            write.write_all(&piece).await.unwrap();
            write.flush().await.unwrap();
            pings += 100;
            // Each is answered once, and none of them waits.
            while pongs < pings {
                let (kind, ..) = frames.next().await.expect("still open");
                pongs += usize::from(kind == PING);
            }
        }
    };
    beside(&server, talking).await;
    println!("{pongs} pings in {:?}", begin.elapsed());
}
