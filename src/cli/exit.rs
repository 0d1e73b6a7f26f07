//! Exit codes: what a script can act on.

use crate::error::Kind;

/// Arguments that cannot work; also clap's own.
pub(super) const USAGE: u8 = 2;

/// The table, as the help shows it; `docs/cli.md` holds the same lines.
pub(super) const HELP: &str = "\
Exit codes:
  0  done
  1  unexpected: a defect, a full disk, damaged data
  2  usage: the arguments or the input cannot work
  3  not allowed, or not authenticated
  4  not found, or not to be seen by this caller
  5  conflict: stale, taken, or in a state that does not allow it
  6  does not open, or the signature is not valid
  7  busy or unavailable: try again
  8  a limit was passed, or it is not supported";

/// The code of an error.
pub(super) const fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Internal | Kind::Tampered => 1,
        Kind::Invalid => USAGE,
        Kind::Unauthenticated | Kind::Forbidden => 3,
        Kind::NotFound => 4,
        Kind::Conflict | Kind::Stale | Kind::State => 5,
        Kind::DoesNotOpen => 6,
        Kind::Busy | Kind::Unavailable => 7,
        Kind::Limit | Kind::Unsupported => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_code_of_the_table() {
        let table = [
            (Kind::Invalid, 2),
            (Kind::Unauthenticated, 3),
            (Kind::Forbidden, 3),
            (Kind::NotFound, 4),
            (Kind::Conflict, 5),
            (Kind::Stale, 5),
            (Kind::State, 5),
            (Kind::Limit, 8),
            (Kind::DoesNotOpen, 6),
            (Kind::Unsupported, 8),
            (Kind::Busy, 7),
            (Kind::Unavailable, 7),
            (Kind::Tampered, 1),
            (Kind::Internal, 1),
        ];
        for (kind, expected) in table {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn the_reference_holds_the_same_table() {
        let reference = include_str!("../../docs/cli.md");
        for line in HELP.lines() {
            assert!(reference.contains(line.trim()), "docs/cli.md lacks: {line}");
        }
    }
}
