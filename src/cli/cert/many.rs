//! `signet cert issue-many`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::App;
use crate::cli::input::{parsed, read_text};
use crate::cli::output::{joined, note, or_dash, time};
use crate::cli::sink::{Access, NewFile, write};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Period, ProfileName};
use crate::wire::{Certificate, CertificateWanted, IssueCertificates, ItemResult};

/// Issue many certificates from one profile in one call, one for each signing request.
///
/// REQUEST is a file with a CSR and the names that its certificate is to have: a.csr=dns:a.example,ip:10.0.0.1. The certificate
/// goes to FOLDER/a.pem, with the ones between it and the root. One that fails does not hold up the others; then the exit code is
/// not 0. At most 1,000.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert issue-many fleet server a.csr=dns:a.fleet.example b.csr=dns:b.fleet.example --into certificates/")]
pub(in crate::cli) struct IssueMany {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    issuer: IssuerName,
    /// The profile.
    #[arg(id = "of", value_name = "PROFILE", value_parser = parsed::<ProfileName>)]
    profile: ProfileName,
    /// FILE, or FILE=NAME,NAME
    #[arg(value_name = "REQUEST", required = true, value_parser = Wanted::parse)]
    requests: Vec<Wanted>,
    /// The folder where certificates are put.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
    /// How long each is to live, instead of the profile's usual time.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

/// A request and the names of its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    csr: PathBuf,
    names: Vec<String>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        let (csr, names) = text.split_once('=').unwrap_or((text, ""));
        let path = PathBuf::from(csr);
        if path.file_stem().is_none() {
            return Err("write it as FILE=NAME,NAME".to_owned());
        }
        let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Self { csr: path, names })
    }
}

/// What became of one.
#[derive(Debug, Serialize)]
struct Made {
    request: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl IssueMany {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { issuer, profile, requests, into, lifetime, force } = self;
        // All that can be wrong here is found before anything is issued.
        let mut places: Vec<PathBuf> = Vec::new();
        for wanted in &requests {
            let place = into.join(wanted.csr.file_stem().unwrap_or_default()).with_extension("pem");
            if places.contains(&place) {
                return Err(Error::new(Kind::Invalid, format!("two certificates would be {}", place.display()))
                    .hint("give the requests other names"));
            }
            drop(NewFile::create(&place, Access::Umask, force)?);
            places.push(place);
        }
        let items = requests.iter().map(|wanted| {
            let csr = Some(read_text(&wanted.csr)?);
            Ok(CertificateWanted { csr, names: wanted.names.clone(), lifetime, ..CertificateWanted::default() })
        });
        let body = IssueCertificates { profile, items: items.collect::<Result<_>>()? };
        let answer = app.online(async |client| client.issue_batch(&issuer, &body).await)?;
        let (mut made, mut first) = (Vec::new(), None);
        for ((wanted, place), one) in requests.into_iter().zip(places).zip(answer.results) {
            let kept = match one {
                ItemResult { ok: Some(certificate), .. } => super::show::pem(&certificate).and_then(|pem| {
                    write(&place, format!("{pem}\n").as_bytes(), Access::Umask, force)?;
                    Ok((certificate, place))
                }),
                ItemResult { ok: None, error } => {
                    let title = error.map_or_else(|| "the server did not say why".to_owned(), |error| error.title);
                    Err(Error::new(Kind::Invalid, title))
                }
            };
            let request = wanted.csr;
            made.push(match kept {
                Ok((certificate, place)) => {
                    Made { request, file: Some(place), certificate: Some(certificate), error: None }
                }
                Err(error) => {
                    let text = error.public().to_owned();
                    first.get_or_insert(error);
                    Made { request, file: None, certificate: None, error: Some(text) }
                }
            });
        }
        app.out.list(&made, &made, &["REQUEST", "SERIAL", "NAMES", "ENDS", "FILE"], row)?;
        let failed = made.iter().filter(|one| one.error.is_some()).count();
        match first {
            Some(error) => {
                for one in &made {
                    if let Some(error) = &one.error {
                        note(format_args!("{}: {error}", one.request.display()));
                    }
                }
                let sentence = format!("{failed} of {} were not issued: {}", made.len(), error.public());
                Err(Error::new(error.kind(), sentence).hint("the others are in place; ask again for those that failed"))
            }
            None => Ok(()),
        }
    }
}

fn row(made: &Made) -> Vec<String> {
    let Made { request, file, certificate, error } = made;
    let of = |part: fn(&Certificate) -> String| or_dash(certificate.as_ref().map(part));
    vec![
        request.display().to_string(),
        of(|one| one.serial.clone()),
        of(|one| joined(&one.names)),
        of(|one| time(one.not_after)),
        file.as_ref().map_or_else(|| or_dash(error.as_ref().map(|_| "(failed)")), |path| path.display().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_file_and_names() {
        let wanted = Wanted::parse("a/b.csr=dns:a.example,ip:10.0.0.1").unwrap();
        assert_eq!(wanted.csr, PathBuf::from("a/b.csr"));
        assert_eq!(wanted.names, ["dns:a.example", "ip:10.0.0.1"]);
        assert!(Wanted::parse("b.csr").unwrap().names.is_empty());
        assert!(Wanted::parse("").is_err() && Wanted::parse("=dns:a").is_err());
    }
}
