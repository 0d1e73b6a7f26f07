//! Issuers and certificates, judged by openssl.

mod revocation;
mod rollover;

use std::path::Path;
use std::process::Command;

use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};
use signet::client::{CertificateQuery, PageRequest};
use signet::error::Kind;
use signet::types::Subject;
use signet::wire::{
    ActivateIssuer, Certificate, CertificateWanted, CreateIssuer, CrossSign, ImportIssuer, IssueCertificate,
    IssueCertificates, Issuer, IssuerRules, Policy, Profile, RevokeCertificate, RevokeCertificates, RotateIssuer,
};

use crate::process::eventually;
use crate::server::{Devices, TestServer};

/// An issuer that is wanted.
pub(crate) fn new_issuer(name: &str, device: &str, algorithm: &str) -> CreateIssuer {
    CreateIssuer {
        name: name.parse().unwrap(),
        subject: Subject { common_name: Some(format!("Test {name}")), ..Subject::default() },
        parent: None,
        outside: false,
        algorithm: algorithm.parse().unwrap(),
        device: Some(device.parse().unwrap()),
        residency: None,
        rules: IssuerRules::default(),
    }
}

/// Makes a root on the token.
pub(crate) async fn root(t: &TestServer, name: &str) -> Issuer {
    t.client.create_issuer(&new_issuer(name, "hsm", "ecdsa-p256-sha256")).await.unwrap()
}

/// Makes an issuer below another one.
async fn below(t: &TestServer, name: &str, parent: &str, device: &str, algorithm: &str) -> Issuer {
    let mut new = new_issuer(name, device, algorithm);
    new.parent = Some(parent.parse().unwrap());
    t.client.create_issuer(&new).await.unwrap()
}

/// A CSR of a new key for one name, which stands beside it.
pub(crate) fn wanted(name: &str) -> CertificateWanted {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    CertificateWanted { csr: Some(csr), names: vec![name.to_owned()], ..CertificateWanted::default() }
}

/// Two certificates, one signed by the other, that have nothing to do with any issuer of ours.
pub(crate) fn strange_chain() -> String {
    let (authority, below) = (outside("Stranger"), KeyPair::generate().unwrap());
    let params = CertificateParams::new(["stranger.example".to_owned()]).unwrap();
    format!("{}{}", params.signed_by(&below, &authority.issuer).unwrap().pem(), authority.pem)
}

/// Issues a certificate for a TLS server.
pub(crate) async fn server(t: &TestServer, issuer: &str, name: &str) -> Certificate {
    issue(t, issuer, wanted(name)).await.unwrap()
}

async fn issue(t: &TestServer, issuer: &str, request: CertificateWanted) -> signet::error::Result<Certificate> {
    let body = IssueCertificate { profile: "server".parse().unwrap(), request };
    t.client.issue(&issuer.parse().unwrap(), &body).await
}

/// An authority outside, as another company has one.
struct Outside {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
}

fn outside(name: &str) -> Outside {
    outside_with(name, CertificateParams::default())
}

fn outside_with(name: &str, mut params: CertificateParams) -> Outside {
    let key = KeyPair::generate().unwrap();
    if params.is_ca == IsCa::NoCa {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    Outside { issuer: rcgen::Issuer::new(params, key), pem }
}

/// What `openssl verify` says of a certificate below these anchors.
fn verify(anchors: &str, chain: &str, certificate: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (anchors, chain, leaf) = (file("anchors", anchors), file("chain", chain), file("leaf", certificate));
    let run = |arguments: &[&Path]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-CAfile"]).arg(&anchors).args(arguments).arg(&leaf);
        openssl.output().unwrap()
    };
    let output = if chain.metadata().unwrap().len() == 0 { run(&[]) } else { run(&[Path::new("-untrusted"), &chain]) };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn pem(issuer: &Issuer) -> &str {
    issuer.versions.last().unwrap().certificate.as_deref().unwrap()
}

/// Verifies a certificate of ours with the chain that came with it.
fn holds(root: &Issuer, certificate: &Certificate) {
    verify(pem(root), &certificate.chain, certificate.certificate.as_deref().unwrap()).unwrap();
}

#[tokio::test]
async fn a_root_in_one_device_certifies_an_intermediate_in_the_other_both_ways() {
    let t = TestServer::with(Devices::WithTpm).await;
    for (at, (above, under)) in [("hsm", "tpm"), ("tpm", "hsm")].into_iter().enumerate() {
        let (top, middle) = (format!("root{at}"), format!("middle{at}"));
        let root = t.client.create_issuer(&new_issuer(&top, above, "ecdsa-p256-sha256")).await.unwrap();
        let issuer = below(&t, &middle, &top, under, "ecdsa-p256-sha256").await;
        assert_eq!((issuer.device.as_str(), issuer.active.unwrap().number()), (under, 1));
        verify(pem(&root), "", pem(&issuer)).unwrap();
        let leaf = server(&t, &middle, "dns:web.example.com").await;
        holds(&root, &leaf);
        assert_eq!(
            (leaf.names.as_slice(), leaf.profile.as_str()),
            (&["dns:web.example.com".to_owned()][..], "default:server")
        );
        assert!(leaf.private_key.is_none());
        assert!(verify(pem(&root), "", leaf.certificate.as_deref().unwrap()).is_err(), "the chain is needed");
        // The inventory knows the leaf and the intermediate's certificate, and what signed them.
        let read = t.client.certificate(&leaf.serial).await.unwrap();
        assert_eq!((read.certificate, read.chain, read.state.as_str()), (leaf.certificate, leaf.chain, "issued"));
    }
}

#[tokio::test]
async fn every_algorithm_that_the_token_has_makes_chains_that_verify() {
    let t = TestServer::start().await;
    for algorithm in ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa2048-pkcs1-sha256", "rsa2048-pss-sha256"]
    {
        let (top, middle) = (format!("root-{algorithm}"), format!("middle-{algorithm}"));
        let root = t.client.create_issuer(&new_issuer(&top, "hsm", algorithm)).await.unwrap();
        below(&t, &middle, &top, "hsm", algorithm).await;
        holds(&root, &server(&t, &middle, "dns:web.example.com").await);
    }
}

#[tokio::test]
async fn path_length_constraints_and_life_of_an_issuer_bound_what_is_below() {
    let t = TestServer::start().await;
    let mut new = new_issuer("root", "hsm", "ecdsa-p256-sha256");
    new.rules = IssuerRules {
        lifetime: Some("10d".parse().unwrap()),
        path_length: Some(1),
        permitted: vec!["dns:fleet.example".to_owned()],
        policies: vec!["1.3.6.1.4.1.99999.1".to_owned()],
        ..IssuerRules::default()
    };
    let root = t.client.create_issuer(&new).await.unwrap();
    let middle = below(&t, "middle", "root", "hsm", "ecdsa-p256-sha256").await;
    let ends = |issuer: &Issuer| issuer.versions[0].not_after.unwrap();
    assert_eq!(ends(&middle), ends(&root), "it does not outlive its parent");
    // No path is left below it.
    let mut deeper = new_issuer("deeper", "hsm", "ecdsa-p256-sha256");
    deeper.parent = Some("middle".parse().unwrap());
    let refused = t.client.create_issuer(&deeper).await.unwrap_err();
    assert!(refused.public().contains("path length"), "{refused}");
    // What the root may not certify, nobody below it can, whatever its own certificate says: openssl looks at all of them.
    holds(&root, &server(&t, "middle", "dns:web.fleet.example").await);
    let refused = issue(&t, "middle", wanted("dns:web.elsewhere.example")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let mut constrained = new_issuer("constrained", "hsm", "ecdsa-p256-sha256");
    constrained.parent = Some("root".parse().unwrap());
    constrained.rules.permitted = vec!["dns:fleet.example".to_owned()];
    t.client.create_issuer(&constrained).await.unwrap();
    holds(&root, &server(&t, "constrained", "dns:web.fleet.example").await);
    let refused = issue(&t, "constrained", wanted("dns:web.elsewhere.example")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let long = CertificateWanted { lifetime: Some("30d".parse().unwrap()), ..wanted("dns:web.fleet.example") };
    assert_eq!(issue(&t, "constrained", long).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn an_outside_authority_certifies_by_request_and_import() {
    let t = TestServer::start().await;
    let mut new = new_issuer("sub", "hsm", "ecdsa-p256-sha256");
    new.outside = true;
    let issuer = t.client.create_issuer(&new).await.unwrap();
    assert_eq!((issuer.active, issuer.versions[0].state.as_str()), (None, "requested"));
    let refused = issue(&t, "sub", wanted("dns:a.example")).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::State, "{refused}");
    let (authority, other) = (outside("Outside Root"), outside("Other Root"));
    let sign = |request: &str, authority: &Outside| {
        let mut csr = CertificateSigningRequestParams::from_pem(request).unwrap();
        csr.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        csr.params.use_authority_key_identifier_extension = true;
        csr.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        csr.signed_by(&authority.issuer).unwrap().pem()
    };
    let import = async |chain: String| t.client.import_issuer(&"sub".parse().unwrap(), &ImportIssuer { chain }).await;
    let request = issuer.versions[0].request.clone().unwrap();
    let own = sign(&request, &authority);
    // What is not ours, is not whole, or was signed by somebody else is refused.
    for wrong in [strange_chain(), own.clone(), format!("{own}{}", other.pem), format!("{}{own}", authority.pem)] {
        assert_eq!(import(wrong).await.unwrap_err().kind(), Kind::Invalid);
    }
    let issuer = import(format!("{own}{}", authority.pem)).await.unwrap();
    assert_eq!(issuer.active.unwrap().number(), 1);
    let leaf = server(&t, "sub", "dns:a.example").await;
    verify(&authority.pem, &leaf.chain, leaf.certificate.as_deref().unwrap()).unwrap();
    // The next version asks again, and is activated once it is there.
    let name = "sub".parse().unwrap();
    let rotated = t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    assert_eq!(rotated.versions[1].state, "requested");
    let own = sign(rotated.versions[1].request.as_deref().unwrap(), &authority);
    let imported = import(format!("{own}{}", authority.pem)).await.unwrap();
    assert_eq!(imported.versions[1].state, "prepared");
    let body = ActivateIssuer { version: imported.versions[1].version };
    t.client.activate_issuer(&name, &body).await.unwrap();
    let leaf = server(&t, "sub", "dns:a.example").await;
    assert_eq!(leaf.version.number(), 2);
    verify(&authority.pem, &leaf.chain, leaf.certificate.as_deref().unwrap()).unwrap();
}

/// What stands above an issuer in an imported chain binds it, and whoever stands below it.
#[tokio::test]
async fn an_imported_chain_bounds_what_is_below() {
    let t = TestServer::start().await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("fleet.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let authority = outside_with("Bounded Root", params);
    let mut new = new_issuer("sub", "hsm", "ecdsa-p256-sha256");
    new.outside = true;
    let issuer = t.client.create_issuer(&new).await.unwrap();
    let mut csr = CertificateSigningRequestParams::from_pem(issuer.versions[0].request.as_deref().unwrap()).unwrap();
    csr.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    csr.params.use_authority_key_identifier_extension = true;
    csr.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let chain = format!("{}{}", csr.signed_by(&authority.issuer).unwrap().pem(), authority.pem);
    t.client.import_issuer(&"sub".parse().unwrap(), &ImportIssuer { chain }).await.unwrap();
    below(&t, "low", "sub", "hsm", "ecdsa-p256-sha256").await;
    for issuer in ["sub", "low"] {
        let leaf = server(&t, issuer, "dns:web.fleet.example").await;
        verify(&authority.pem, &leaf.chain, leaf.certificate.as_deref().unwrap()).unwrap();
        let refused = issue(&t, issuer, wanted("dns:web.elsewhere.example")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    let mut deeper = new_issuer("deeper", "hsm", "ecdsa-p256-sha256");
    deeper.parent = Some("low".parse().unwrap());
    let refused = t.client.create_issuer(&deeper).await.unwrap_err();
    assert!(refused.public().contains("path length"), "{refused}");
}

#[tokio::test]
async fn who_may_have_which_name_is_policy() {
    let t = TestServer::start().await;
    root(&t, "fleet:ca").await;
    let text = r#"
        permit (principal == Signet::Identity::"deployer", action == Signet::Action::"IssueCertificate",
          resource == Signet::Issuer::"fleet:ca")
        when {
          context has name && context.name like "dns:*.fleet.example" &&
          context has profile && context.profile == "default:server"
        };
        permit (principal == Signet::Identity::"deployer", action == Signet::Action::"ReadIssuer", resource);"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"deployer".parse().unwrap(), None, &policy).await.unwrap();
    let token = async |identity: &str| {
        let body =
            signet::wire::CreateToken { identity: identity.parse().unwrap(), groups: vec![], ttl: None, uses: None };
        t.client.create_token(&body).await.unwrap().token.unwrap().0.clone()
    };
    let deployer = t.client(Some(&token("deployer").await));
    let nobody = t.client(Some(&token("nobody").await));
    let issuer = "fleet:ca".parse().unwrap();
    let ask = |profile: &str, names: &[&str]| {
        let mut request = wanted("dns:unused");
        request.names = names.iter().map(|name| (*name).to_owned()).collect();
        IssueCertificate { profile: profile.parse().unwrap(), request }
    };
    deployer.issue(&issuer, &ask("server", &["dns:web.fleet.example", "dns:db.fleet.example"])).await.unwrap();
    for (profile, names) in [
        ("server", &["dns:web.fleet.example", "dns:bank.example"][..]),
        ("server", &["dns:fleet.example"]),
        ("client", &["dns:web.fleet.example"]),
        ("client", &[]),
    ] {
        let refused = deployer.issue(&issuer, &ask(profile, names)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Forbidden, "{profile} {names:?}: {refused}");
    }
    // Who asked learns which name it was, and so does the auditor.
    let refused = deployer.issue(&issuer, &ask("server", &["dns:web.fleet.example", "dns:bank.example"])).await;
    assert!(refused.unwrap_err().public().contains("dns:bank.example"));
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let last = records.iter().rev().find(|record| record["action"] == "IssueCertificate").unwrap();
    assert_eq!((&last["phase"], &last["facts"]["name"]), (&"refused".into(), &"dns:bank.example".into()));
    let refused = nobody.issue(&issuer, &ask("server", &["dns:web.fleet.example"])).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::NotFound, "who may not read the issuer does not learn of it");
    // One name of one item that is not allowed refuses the batch.
    let items = vec![wanted("dns:a.fleet.example"), wanted("dns:bank.example")];
    let body = IssueCertificates { profile: "server".parse().unwrap(), items };
    assert_eq!(deployer.issue_batch(&issuer, &body).await.unwrap_err().kind(), Kind::Forbidden);
    let all = t.client.certificates(&CertificateQuery::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(all.items.len(), 2, "the root and one leaf: nothing was issued for a refusal");
}

/// What programs read as the name of a peer is one of the names that policy was asked about; and it knows the whole subject.
#[tokio::test]
async fn the_subject_is_policy_too() {
    let t = TestServer::start().await;
    root(&t, "ca").await;
    let text = r#"
        permit (principal == Signet::Identity::"deployer", action == Signet::Action::"IssueCertificate", resource)
        when { context has name && context.name like "dns:*.fleet.example" };
        permit (principal == Signet::Identity::"deployer", action == Signet::Action::"IssueCertificate", resource)
        when {
          context has profile && context.profile == "default:code-signing" && !(context has name) &&
          context has subject && context.subject has organization && context.subject.organization == "Example"
        }
        unless { context.subject has organizational_unit };
        permit (principal == Signet::Identity::"deployer", action == Signet::Action::"SignIntermediate", resource)
        when { context has subject && context.subject has common_name && context.subject.common_name like "Fleet *" };
        permit (principal == Signet::Identity::"deployer",
          action in [Signet::Action::"CreateIssuer", Signet::Action::"ReadIssuer"], resource);"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"deployer".parse().unwrap(), None, &policy).await.unwrap();
    let body =
        signet::wire::CreateToken { identity: "deployer".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let deployer = t.client(Some(&t.client.create_token(&body).await.unwrap().token.unwrap().0));
    let common = |name: &str| Subject { common_name: Some(name.to_owned()), ..Subject::default() };
    let ask = async |profile: &str, names: &[&str], subject: Subject| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = CertificateWanted { names, subject, ..wanted("dns:unused") };
        let body = IssueCertificate { profile: profile.parse().unwrap(), request };
        deployer.issue(&"ca".parse().unwrap(), &body).await.map_err(|refused| refused.kind())
    };
    // 1. The common name of a peer is one of the names.
    let one = "dns:a.fleet.example";
    ask("client", &[one], common("a.fleet.example")).await.unwrap();
    assert_eq!(ask("client", &[one], common("postgres")).await.unwrap_err(), Kind::Invalid);
    assert_eq!(ask("client", &[one, "dns:postgres"], common("postgres")).await.unwrap_err(), Kind::Forbidden);
    // 2. Who signs programs is nobody's peer: its subject is for policy alone.
    let example = |unit: Option<&str>| Subject {
        organization: Some("Example".to_owned()),
        organizational_unit: unit.map(str::to_owned),
        ..common("Releases")
    };
    ask("code-signing", &[], example(None)).await.unwrap();
    for subject in [common("Releases"), example(Some("Finance"))] {
        assert_eq!(ask("code-signing", &[], subject).await.unwrap_err(), Kind::Forbidden);
    }
    // 3. So is that of an authority.
    let below = |name: &str, subject: &str| CreateIssuer {
        parent: Some("ca".parse().unwrap()),
        subject: common(subject),
        ..new_issuer(name, "hsm", "ecdsa-p256-sha256")
    };
    deployer.create_issuer(&below("one", "Fleet One")).await.unwrap();
    assert_eq!(deployer.create_issuer(&below("two", "Bank")).await.unwrap_err().kind(), Kind::Forbidden);
}

#[tokio::test]
async fn a_batch_is_answered_item_by_item_and_a_repetition_by_what_came_of_it() {
    let t = TestServer::start().await;
    let root = root(&t, "ca").await;
    let mut items: Vec<_> = (0..40).map(|number| wanted(&format!("dns:h{number}.example"))).collect();
    items[7].names = vec!["email:a@b.example".to_owned()];
    let body = IssueCertificates { profile: "server".parse().unwrap(), items };
    let results = t.client.issue_batch(&"ca".parse().unwrap(), &body).await.unwrap().results;
    for (number, result) in results.iter().enumerate() {
        match (&result.ok, &result.error) {
            (Some(one), None) => {
                assert_eq!(one.names, [format!("dns:h{number}.example")]);
                holds(&root, one);
            }
            (None, Some(error)) => assert_eq!((number, error.code.as_str()), (7, "invalid")),
            other => panic!("{other:?}"),
        }
    }
    // The same again, under one key: each item has the answer of its own place, also behind the one that failed.
    let body = serde_json::to_string(&body).unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (status, answer) = t.post(t.token(), "batch", "issuers/ca/issue-batch", &body).await;
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let results = answer["results"].as_array().unwrap().iter();
        answers.push(results.map(|result| result["ok"]["serial"].as_str().map(str::to_owned)).collect::<Vec<_>>());
    }
    assert_eq!(answers[0].iter().position(Option::is_none), Some(7));
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_request_with_very_many_names_is_refused_before_anything_is_asked() {
    let t = TestServer::start().await;
    root(&t, "ca").await;
    let many = |count: usize| -> Vec<_> { (0..count).map(|number| format!("dns:h{number}.example")).collect() };
    // So many that comparing each with each, or asking the policies of each, would take the service down.
    for count in [101, 100_000] {
        let mut request = wanted("dns:unused");
        request.names = many(count);
        let body =
            IssueCertificates { profile: "server".parse().unwrap(), items: vec![wanted("dns:a.example"), request] };
        let refused = t.client.issue_batch(&"ca".parse().unwrap(), &body).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Limit);
        assert!(refused.public().contains("at most 100 names"), "{refused}");
    }
    let mut request = wanted("dns:unused");
    request.names = many(101);
    assert_eq!(issue(&t, "ca", request.clone()).await.unwrap_err().kind(), Kind::Limit);
    request.names = many(100);
    assert_eq!(issue(&t, "ca", request).await.unwrap().names.len(), 100);
}

#[tokio::test]
async fn a_profile_of_one_namespace_is_nothing_to_an_issuer_of_another() {
    let t = TestServer::start().await;
    root(&t, "fleet:ca").await;
    let profile = serde_json::json!({"kind": "server", "names": ["dns:*"], "longest": "398d"});
    for name in ["tenant:mine", "fleet:ours"] {
        let body = Profile { name: None, profile: profile.clone(), built_in: false, etag: None };
        t.client.put_profile(&name.parse().unwrap(), None, &body).await.unwrap();
    }
    let ask = async |profile: &str| {
        let body = IssueCertificate { profile: profile.parse().unwrap(), request: wanted("dns:a.example") };
        t.client.issue(&"fleet:ca".parse().unwrap(), &body).await
    };
    let refused = ask("tenant:mine").await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert!(refused.public().contains("another namespace"), "{refused}");
    ask("fleet:ours").await.unwrap();
}

#[tokio::test]
async fn certificates_are_found_by_what_they_say_page_by_page() {
    let mut t = TestServer::start().await;
    root(&t, "a:one").await;
    root(&t, "b:two").await;
    for number in 0..7 {
        let issuer = if number % 2 == 0 { "a:one" } else { "b:two" };
        server(&t, issuer, &format!("dns:h{number}.example")).await;
    }
    t.restart().await;
    let find = async |query: CertificateQuery| {
        let (mut found, mut page) = (Vec::new(), PageRequest { size: Some(2), token: None });
        loop {
            let some = t.client.certificates(&query, &page).await.unwrap();
            found.extend(some.items.into_iter().flat_map(|one| one.names));
            match some.next_page_token {
                Some(next) => page.token = Some(next),
                None => return found,
            }
        }
    };
    let names = |numbers: &[u32]| numbers.iter().map(|number| format!("dns:h{number}.example")).collect::<Vec<_>>();
    let any = CertificateQuery::default();
    assert_eq!(find(any.clone()).await, names(&[6, 5, 4, 3, 2, 1, 0]));
    assert_eq!(
        find(CertificateQuery { issuer: Some("b:two".parse().unwrap()), ..any.clone() }).await,
        names(&[5, 3, 1])
    );
    assert_eq!(
        find(CertificateQuery { namespace: Some("a".parse().unwrap()), ..any.clone() }).await,
        names(&[6, 4, 2, 0])
    );
    assert_eq!(find(CertificateQuery { name: Some("dns:h3.example".into()), ..any.clone() }).await, names(&[3]));
    assert_eq!(find(CertificateQuery { profile: Some("server".into()), ..any.clone() }).await.len(), 7);
    assert_eq!(
        find(CertificateQuery { requester: Some("identity/administrator".into()), ..any.clone() }).await.len(),
        7
    );
    assert!(find(CertificateQuery { requester: Some("identity/nobody".into()), ..any.clone() }).await.is_empty());
    let soon = t.clock_now() + SignedDuration::from_hours(25);
    assert_eq!(
        find(CertificateQuery { expires_before: Some(soon), ..any.clone() }).await,
        names(&[0, 1, 2, 3, 4, 5, 6])
    );
    let odd = PageRequest { size: Some(2), token: Some("bm9uc2Vuc2U".into()) };
    assert_eq!(t.client.certificates(&any, &odd).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_key_is_made_outside_the_device_only_where_the_profile_says_so() {
    let t = TestServer::start().await;
    let root = root(&t, "ca").await;
    let request = CertificateWanted {
        key: Some("ecdsa-p256".to_owned()),
        names: vec!["dns:a.example".to_owned()],
        ..CertificateWanted::default()
    };
    let refused = issue(&t, "ca", request.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    let profile = serde_json::json!({"kind": "server", "names": ["dns:*.example"], "software": true});
    let body = Profile { name: None, profile, built_in: false, etag: None };
    let name = "server".parse().unwrap();
    let stored = t.client.put_profile(&name, None, &body).await.unwrap();
    assert!(!stored.built_in);
    let made = issue(&t, "ca", request).await.unwrap();
    holds(&root, &made);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, &made.private_key.as_ref().unwrap().0).unwrap();
    let public = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&file).output().unwrap().stdout;
    let certificate = folder.path().join("certificate.pem");
    std::fs::write(&certificate, made.certificate.as_deref().unwrap()).unwrap();
    let certified =
        Command::new("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(&certificate).output().unwrap();
    assert_eq!(public, certified.stdout);
    assert!(t.client.certificate(&made.serial).await.unwrap().private_key.is_none(), "it is shown once");
    // The stored profile goes, and the one that is built in shows again.
    t.client.delete_profile(&name).await.unwrap();
    assert!(t.client.profile(&name).await.unwrap().built_in);
    let nonsense = Profile { profile: serde_json::json!({"kind": "server"}), ..body };
    assert_eq!(t.client.put_profile(&name, None, &nonsense).await.unwrap_err().kind(), Kind::Invalid);
}
