//! `signet issuer create`.

use clap::Args;

use super::show::shown;
use crate::cli::input::{one_of, parsed};
use crate::cli::output::note;
use crate::cli::{App, subject};
use crate::error::Result;
use crate::types::{Algorithm, Distribution, IssuerName, Name, Period, Residency, Rollover, Subject};
use crate::wire::{CreateIssuer, IssuerRules};

/// Only a key that signs certificates can be that of an issuer.
const SIGNING: &[Algorithm] = &[
    Algorithm::EcdsaP256,
    Algorithm::EcdsaP384,
    Algorithm::EcdsaP521,
    Algorithm::Ed25519,
    Algorithm::Rsa2048Pkcs1,
    Algorithm::Rsa3072Pkcs1,
    Algorithm::Rsa4096Pkcs1,
    Algorithm::Rsa2048Pss,
    Algorithm::Rsa3072Pss,
    Algorithm::Rsa4096Pss,
];

/// Make an authority: its key in a device, and its certificate.
///
/// Without --parent it is a root and certifies itself. With --outside it begins with a request, which `signet issuer request`
/// writes for the outside authority; `signet issuer import` takes what that one answers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer create root --subject 'CN=Root,O=Example' --algorithm ecdsa-p384-sha384 --path-length 1
  signet issuer create fleet --subject CN=Fleet --parent root --algorithm ecdsa-p256-sha256 --permit dns:fleet.example
  signet issuer create shop --subject CN=Shop --parent root --algorithm ecdsa-p256-sha256 --crl-url http://pki.example.com/shop-{version}.crl
  signet issuer create office --subject CN=Office --outside --algorithm rsa3072-pkcs1-sha256 --device tpm")]
pub(in crate::cli) struct Create {
    /// The new issuer: NAME, or NAMESPACE:NAME; its key has the same name.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Its subject, as CN=Fleet,O=Example.
    #[arg(long, value_name = "SUBJECT", value_parser = subject::parsed)]
    subject: Subject,
    /// The issuer that certifies it.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>, conflicts_with = "outside")]
    parent: Option<IssuerName>,
    /// An authority that is not of this service certifies it.
    #[arg(long)]
    outside: bool,
    /// How its key signs.
    #[arg(long, value_name = "ALGORITHM", value_parser = one_of(SIGNING, Algorithm::as_str))]
    algorithm: Algorithm,
    /// The device that keeps its key, instead of the server's default.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    device: Option<Name>,
    /// Where the private part stays, instead of the device's default.
    #[arg(long, value_name = "WHERE", value_parser = one_of(Residency::ALL, Residency::as_str))]
    residency: Option<Residency>,
    #[command(flatten)]
    rules: Rules,
}

impl Create {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, subject, parent, outside, algorithm, device, residency, rules } = self;
        let rules = rules.over(IssuerRules::default());
        let body = CreateIssuer { name, subject, parent, outside, algorithm, device, residency, rules };
        let issuer = app.online(async |client| client.create_issuer(&body).await)?;
        if issuer.outside {
            note(format_args!("signet issuer request {} writes what its authority has to sign", issuer.name));
        }
        app.out.answer(&issuer, shown)
    }
}

/// What counts for an issuer from its next version on.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Rules {
    /// How long its certificate lives: 3650d for a root, 1825d below another one; never longer than its parent's.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    /// How many authorities may stand below it.
    #[arg(long, value_name = "N")]
    path_length: Option<u8>,
    /// Names that it may certify, and no others of the kind: dns:example.com, ip:10.0.0.0/8, email:example.com; may be given
    /// several times.
    #[arg(long = "permit", value_name = "NAMES")]
    permitted: Vec<String>,
    /// Names that it may not certify; may be given several times.
    #[arg(long = "exclude", value_name = "NAMES")]
    excluded: Vec<String>,
    /// A policy that it is certified under, as an object identifier; may be given several times.
    #[arg(long = "policy", value_name = "OID")]
    policies: Vec<String>,
    /// Where its certificates say that its revocation list is; {version} stands for the version that signs.
    #[arg(long, value_name = "URL")]
    crl_url: Vec<String>,
    /// Where they say that OCSP is answered.
    #[arg(long, value_name = "URL")]
    ocsp_url: Vec<String>,
    /// Where they say that its own certificate is, in DER.
    #[arg(long, value_name = "URL")]
    issuer_url: Vec<String>,
    /// They name no such places at all.
    #[arg(long, conflicts_with_all = ["crl_url", "ocsp_url", "issuer_url", "service_urls"])]
    no_urls: bool,
    /// They name those of this service again, as where nothing is told.
    #[arg(long, conflicts_with_all = ["crl_url", "ocsp_url", "issuer_url"])]
    service_urls: bool,
    /// When its next version is made, and when that one issues, in hundredths of its life: 50,67 where not told.
    #[arg(long, value_name = "N,N", value_parser = rollover)]
    rollover: Option<Rollover>,
    /// Its next version comes only by `signet issuer rotate`.
    #[arg(long, conflicts_with = "rollover")]
    manual_rollover: bool,
}

impl Rules {
    /// `base`, with what was given here in place of its own.
    pub(super) fn over(&self, base: IssuerRules) -> IssuerRules {
        let Self { lifetime, path_length, permitted, excluded, rollover, manual_rollover, .. } = self.clone();
        let Self { policies, crl_url, ocsp_url, issuer_url, no_urls, service_urls, .. } = self.clone();
        let given = |list: Vec<String>, base: Vec<String>| if list.is_empty() { base } else { list };
        let by_hand = manual_rollover || rollover.is_none() && base.manual_rollover;
        let named = [&crl_url, &ocsp_url, &issuer_url].into_iter().any(|list| !list.is_empty());
        let distribution = if service_urls {
            None
        } else if no_urls {
            Some(Distribution::default())
        } else if named {
            let Distribution { crl, ocsp, issuer } = base.distribution.unwrap_or_default();
            let (crl, ocsp) = (given(crl_url, crl), given(ocsp_url, ocsp));
            Some(Distribution { crl, ocsp, issuer: given(issuer_url, issuer) })
        } else {
            base.distribution
        };
        IssuerRules {
            lifetime: lifetime.or(base.lifetime),
            path_length: path_length.or(base.path_length),
            permitted: given(permitted, base.permitted),
            excluded: given(excluded, base.excluded),
            policies: given(policies, base.policies),
            distribution,
            rollover: rollover.or(base.rollover).filter(|_| !by_hand),
            manual_rollover: by_hand,
        }
    }
}

fn rollover(text: &str) -> Result<Rollover, String> {
    let parse = || {
        let (prepare, activate) = text.split_once(',')?;
        Some(Rollover { prepare: prepare.trim().parse().ok()?, activate: activate.trim().parse().ok()? })
    };
    parse().ok_or_else(|| "write two numbers, such as 50,67".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_not_named_stay() {
        let base = IssuerRules {
            path_length: Some(1),
            permitted: vec!["dns:a.example".to_owned()],
            rollover: Some(Rollover::default()),
            ..IssuerRules::default()
        };
        let same = Rules::default().over(base.clone());
        assert_eq!(same, base);
        let by_hand = Rules { manual_rollover: true, path_length: Some(0), ..Rules::default() }.over(base.clone());
        assert_eq!((by_hand.rollover, by_hand.manual_rollover, by_hand.path_length), (None, true, Some(0)));
        let again = Rules { rollover: Some(rollover("40, 60").unwrap()), ..Rules::default() }.over(by_hand);
        assert_eq!((again.rollover.unwrap().prepare, again.manual_rollover), (40, false));
        let crl_url = vec!["http://a.example/1.crl".to_owned()];
        let placed = Rules { crl_url: crl_url.clone(), ..Rules::default() }.over(base.clone());
        assert_eq!(placed.distribution.as_ref().unwrap().crl, crl_url);
        let ocsp_url = vec!["http://a.example/".to_owned()];
        let both = Rules { ocsp_url, ..Rules::default() }.over(placed.clone()).distribution.unwrap();
        assert_eq!((both.crl.len(), both.ocsp.len(), both.issuer.len()), (1, 1, 0));
        let none = Rules { no_urls: true, ..Rules::default() }.over(placed.clone());
        assert_eq!(none.distribution, Some(Distribution::default()));
        assert_eq!(Rules { service_urls: true, ..Rules::default() }.over(placed).distribution, None);
        assert!(rollover("40").is_err() && rollover("a,b").is_err());
    }

    #[test]
    fn every_algorithm_that_signs_certificates_is_offered_and_no_other() {
        let signs = |one: &&Algorithm| crate::x509::certificate::algorithm_identifier(**one).is_ok();
        let signing: Vec<_> = Algorithm::ALL.iter().filter(signs).collect();
        assert_eq!(signing, SIGNING.iter().collect::<Vec<_>>());
    }
}
