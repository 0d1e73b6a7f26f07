//! Encrypted files: of every length, and against everybody who changes them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

use std::io::{Read, Write};

use signet::error::{Error, Kind, Result};
use signet::file::{CHUNK, Header, MAX_WRAPPED, decrypt, encrypt, write_whole};
use signet::types::SecretBytes;

/// What a sealed chunk takes.
const SEALED: usize = CHUNK + 16;
const WRAPPED: &[u8] = b"a wrapped data key";
const HEADER: usize = 4 + 1 + 2 + WRAPPED.len() + 32;

fn key() -> SecretBytes {
    SecretBytes::new((0..32).collect())
}

fn plaintext(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

fn encrypted(plaintext: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let done = encrypt(&mut &*plaintext, &mut file, &key(), WRAPPED, &mut |_| {}).unwrap();
    assert_eq!(done, plaintext.len() as u64);
    file
}

fn decrypted(file: &[u8]) -> Result<Vec<u8>> {
    let mut reader = file;
    let header = Header::read(&mut reader)?;
    let mut plaintext = Vec::new();
    decrypt(&header, &mut reader, &mut plaintext, &key(), &mut |_| {})?;
    Ok(plaintext)
}

fn refusal(file: &[u8]) -> Error {
    decrypted(file).unwrap_err()
}

#[test]
fn files_of_every_length_come_back() {
    for length in [0, 1, 15, 16, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17] {
        let plaintext = plaintext(length);
        let file = encrypted(&plaintext);
        let chunks = length.div_ceil(CHUNK).max(1);
        assert_eq!(file.len(), HEADER + length + 16 * chunks);
        assert_eq!(Header::read(&mut &*file).unwrap().wrapped(), WRAPPED);
        assert!(decrypted(&file).unwrap() == plaintext, "{length} bytes");
    }
}

#[test]
fn readers_that_give_little_at_a_time_change_nothing() {
    /// Answers 1 to 7000 bytes, and now and then an interruption.
    struct Dripping<'a>(&'a [u8], usize);
    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = (self.1 * 31 + 7) % 7001;
            if self.1.is_multiple_of(5) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }
    let plaintext = plaintext(2 * CHUNK + 100);
    let mut file = Vec::new();
    encrypt(&mut Dripping(&plaintext, 1), &mut file, &key(), WRAPPED, &mut |_| {}).unwrap();
    let mut reader = Dripping(&file, 3);
    let header = Header::read(&mut reader).unwrap();
    let mut out = Vec::new();
    decrypt(&header, &mut reader, &mut out, &key(), &mut |_| {}).unwrap();
    assert!(out == plaintext);
}

#[test]
fn several_megabytes_pass_in_small_memory_with_progress() {
    /// Counts what comes, keeps a sum of it, and sees how much is written at a time.
    #[derive(Default)]
    struct Sink {
        length: usize,
        largest: usize,
    }
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.length += bytes.len();
            self.largest = self.largest.max(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let length = 5 * 1024 * 1024 + 3;
    let mut reader = std::io::repeat(7).take(length);
    let (mut sink, mut seen) = (Sink::default(), Vec::new());
    let done = encrypt(&mut reader, &mut sink, &key(), WRAPPED, &mut |done| seen.push(done)).unwrap();
    assert_eq!(done, length);
    assert_eq!(seen.len(), 81);
    assert!(seen.is_sorted() && seen.last() == Some(&length));
    assert_eq!((sink.length as u64, sink.largest), (HEADER as u64 + length + 81 * 16, SEALED));
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let short = encrypted(b"a short file");
    for at in 0..short.len() {
        for bit in 0..8 {
            let mut bad = short.clone();
            bad[at] ^= 1 << bit;
            refusal(&bad);
        }
    }
    let long = encrypted(&plaintext(2 * CHUNK + 5));
    for at in [HEADER, HEADER + CHUNK, HEADER + SEALED - 1, HEADER + SEALED, HEADER + 2 * SEALED, long.len() - 1] {
        let mut bad = long.clone();
        bad[at] ^= 0x80;
        assert_eq!(refusal(&bad).kind(), Kind::DoesNotOpen, "at {at}");
    }
}

#[test]
fn a_file_that_was_cut_does_not_open() {
    let short = encrypted(b"a short file");
    for length in 0..short.len() {
        refusal(&short[..length]);
    }
    let long = encrypted(&plaintext(3 * CHUNK));
    for (length, sentence) in [
        (HEADER + 2 * SEALED, "the file is cut short"),
        (HEADER + SEALED, "the file is cut short"),
        (HEADER, "does not open from byte 0"),
        (HEADER + 3 * SEALED - 1, "does not open from byte 131072"),
        (HEADER + 2 * SEALED + 1, "does not open from byte 131072"),
        (HEADER + 2 * SEALED - 1, "does not open from byte 65536"),
    ] {
        let error = refusal(&long[..length]);
        assert_eq!(error.kind(), Kind::DoesNotOpen);
        assert!(error.public().contains(sentence), "{length} bytes: {error}");
    }
}

#[test]
fn a_file_that_was_added_to_does_not_open() {
    for length in [0, 5, CHUNK, CHUNK + 5] {
        let file = encrypted(&plaintext(length));
        let chunk = file[HEADER..].to_vec();
        for added in [&[0][..], &[0; 16], &[0; SEALED], &chunk] {
            let error = refusal(&[&file, added].concat());
            assert_eq!(error.kind(), Kind::DoesNotOpen);
        }
    }
    let full = encrypted(&plaintext(CHUNK));
    assert_eq!(refusal(&[&full[..], b"x"].concat()).public(), "something was added to the file");
}

#[test]
fn chunks_that_were_swapped_repeated_or_left_out_do_not_open() {
    let file = encrypted(&plaintext(4 * CHUNK));
    let (header, body) = file.split_at(HEADER);
    let chunks: Vec<_> = body.chunks(SEALED).collect();
    let with = |order: &[usize]| {
        let chosen: Vec<_> = order.iter().map(|n| chunks[*n]).collect();
        [header, &chosen.concat()].concat()
    };
    decrypted(&with(&[0, 1, 2, 3])).unwrap();
    for order in [&[1, 0, 2, 3][..], &[0, 2, 1, 3], &[0, 1, 1, 2, 3], &[0, 2, 3], &[0, 1, 3], &[3], &[0, 1, 2, 3, 3]] {
        assert_eq!(refusal(&with(order)).kind(), Kind::DoesNotOpen, "{order:?}");
    }
    // A chunk of another file under the same data key.
    let other = encrypted(&plaintext(4 * CHUNK));
    let mixed = [header, chunks[0], &other[HEADER + SEALED..]].concat();
    assert_eq!(refusal(&mixed).kind(), Kind::DoesNotOpen);
}

#[test]
fn another_key_opens_nothing() {
    let file = encrypted(b"a short file");
    let mut reader = &*file;
    let header = Header::read(&mut reader).unwrap();
    let mut out = Vec::new();
    let error = decrypt(&header, &mut reader, &mut out, &SecretBytes::new(vec![1; 32]), &mut |_| {}).unwrap_err();
    assert_eq!((error.kind(), out.len()), (Kind::DoesNotOpen, 0));
    for length in [0, 16, 31, 33] {
        let key = SecretBytes::new(vec![1; length]);
        let error = encrypt(&mut &b""[..], &mut Vec::new(), &key, WRAPPED, &mut |_| {}).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn other_files_are_told_apart() {
    for other in [&b""[..], b"SGN", b"SGNF", b"age-encryption.org/v1\n", &[0; 100], b"SGNF\x01\xff\xff"] {
        assert_eq!(Header::read(&mut { other }).unwrap_err().kind(), Kind::Invalid, "{other:?}");
    }
    let mut newer = encrypted(b"");
    newer[4] = 2;
    assert_eq!(refusal(&newer).kind(), Kind::Unsupported);
    let long = vec![0; MAX_WRAPPED + 1];
    let error = encrypt(&mut &b""[..], &mut Vec::new(), &key(), &long, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    let mut file = Vec::new();
    encrypt(&mut &b"x"[..], &mut file, &key(), &long[1..], &mut |_| {}).unwrap();
    assert_eq!(decrypted(&file).unwrap(), b"x");
}

#[test]
fn the_golden_file_opens_for_ever() {
    let golden = include_bytes!("golden/file-v1.bin");
    assert_eq!(Header::read(&mut &golden[..]).unwrap().wrapped(), WRAPPED);
    assert!(decrypted(golden).unwrap() == plaintext(CHUNK + 7));
}

#[test]
fn an_output_without_room_is_reported() {
    let mut small = [0; 100];
    let error = encrypt(&mut std::io::repeat(1), &mut small.as_mut_slice(), &key(), WRAPPED, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn an_output_appears_whole_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    let names = || std::fs::read_dir(folder.path()).unwrap().count();

    // 1. A cut file leaves nothing behind, though its first chunk was good.
    let file = encrypted(&plaintext(2 * CHUNK));
    let cut = &file[..HEADER + SEALED];
    let attempt = |file: &[u8], replace| {
        write_whole(&path, replace, |writer| {
            let mut reader = file;
            let header = Header::read(&mut reader)?;
            decrypt(&header, &mut reader, writer, &key(), &mut |_| {})
        })
    };
    assert_eq!(attempt(cut, false).unwrap_err().kind(), Kind::DoesNotOpen);
    assert_eq!(names(), 0);
    // 2. A whole one appears, for its owner alone.
    assert_eq!(attempt(&file, false).unwrap(), 2 * CHUNK as u64);
    assert!(std::fs::read(&path).unwrap() == plaintext(2 * CHUNK));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // 3. What stands there is not touched unless it is to be replaced, and then only by a whole file.
    assert_eq!(attempt(&encrypted(b"new"), false).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(attempt(cut, true).unwrap_err().kind(), Kind::DoesNotOpen);
    assert!(std::fs::read(&path).unwrap() == plaintext(2 * CHUNK));
    attempt(&encrypted(b"new"), true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(names(), 1);
    // 4. A folder that is not there.
    let error = write_whole(&folder.path().join("none/plain"), false, |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
}
