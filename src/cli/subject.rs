//! A subject on the command line: `CN=Fleet Root, O=Example`, as the server shows it.

use crate::error::{Error, Kind, Result};
use crate::types::Subject;

/// Parses attributes between commas, in any order. A backslash takes the next character as it is.
pub(super) fn subject(text: &str) -> Result<Subject> {
    let mut subject = Subject::default();
    for part in parts(text)? {
        let (name, value) = part.split_once('=').ok_or_else(odd)?;
        let field = match name.trim().to_ascii_uppercase().as_str() {
            "C" => &mut subject.country,
            "ST" => &mut subject.province,
            "L" => &mut subject.locality,
            "O" => &mut subject.organization,
            "OU" => &mut subject.organizational_unit,
            "CN" => &mut subject.common_name,
            _ => return Err(odd()),
        };
        if field.replace(value.trim().to_owned()).is_some() {
            return Err(Error::new(Kind::Invalid, format!("the subject names {} twice", name.trim())));
        }
    }
    Ok(subject)
}

/// The same for `clap`.
pub(super) fn parsed(text: &str) -> Result<Subject, String> {
    subject(text).map_err(|error| match error.mend() {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    })
}

fn parts(text: &str) -> Result<Vec<String>> {
    let (mut parts, mut part, mut characters) = (Vec::new(), String::new(), text.chars());
    while let Some(c) = characters.next() {
        match c {
            '\\' => part.push(characters.next().ok_or_else(odd)?),
            ',' => parts.push(std::mem::take(&mut part)),
            _ => part.push(c),
        }
    }
    if !(part.is_empty() && parts.is_empty()) {
        parts.push(part);
    }
    Ok(parts)
}

fn odd() -> Error {
    Error::new(Kind::Invalid, "this is not a subject")
        .hint("write CN=Fleet Root,O=Example with attributes of CN, OU, O, L, ST and C; \\, for a comma within one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_as_the_server_shows_it() {
        let read = subject("CN=Fleet \\= Root, O=Example\\, Inc., C=DE").unwrap();
        let expected = Subject {
            common_name: Some("Fleet = Root".to_owned()),
            organization: Some("Example, Inc.".to_owned()),
            country: Some("DE".to_owned()),
            ..Subject::default()
        };
        assert_eq!(read, expected);
        assert_eq!(subject("").unwrap(), Subject::default());
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for bad in ["Fleet", "CN=a,CN=b", "DC=example", "CN=a,", "CN=a\\"] {
            assert_eq!(subject(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
