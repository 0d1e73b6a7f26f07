//! The rules of the module, and its answers compared with Cedar's own over the whole set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cedar_policy::{Authorizer, Entities, PolicySet, Request};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::{Algorithm, Context, Credential, Domain, Hash, KeyName, ProfileName, Purpose, Resource, Subject};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn caller(identity: &str, groups: &[&str]) -> Caller {
    Caller {
        principal: Principal::Identity(name(identity)),
        groups: groups.iter().map(|group| name(group)).collect(),
        credential: Credential::Token("0123".into()),
        address: None,
        request_id: "r".into(),
    }
}

fn key(text: &str) -> Target<'static> {
    Target::named(Resource::Key(text.parse().unwrap()))
}

fn policies(texts: &[&str]) -> Policies {
    Policies::new(texts.iter().enumerate().map(|(n, text)| (name(&format!("p{n}")), *text))).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn with_labels<'a>(target: &Target<'_>, device: &'a Name, labels: &'a BTreeMap<String, String>) -> Target<'a> {
    let key = KeyFacts {
        purpose: Purpose::Sign,
        algorithm: Algorithm::EcdsaP256,
        domain: Some(Domain::Artifact),
        device,
        labels,
    };
    Target { resource: target.resource.clone(), key: Some(key) }
}

#[test]
fn schema_and_actions_are_equal() {
    let vocabulary = Vocabulary::load().unwrap();
    let declared: BTreeSet<_> = vocabulary.schema().actions().map(|id| id.id().unescaped().to_owned()).collect();
    let ours: BTreeSet<_> = Action::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(declared, ours);
    assert_eq!(vocabulary.schema().action_groups().count(), 0, "the index treats `in` as a list");
}

#[test]
fn examples_of_the_documentation_are_valid() {
    let pages = [include_str!("../../docs/policies.md"), include_str!("../../docs/certificates.md")];
    let blocks: Vec<_> = pages
        .iter()
        .flat_map(|page| page.split("```cedar\n").skip(1))
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 6);
    assert_eq!(blocks[0], ADMINISTRATORS_TEXT);
    for (n, block) in blocks.iter().enumerate() {
        validate(&name(&format!("example-{n}")), block).unwrap_or_else(|e| panic!("{e:?} {:?}\n{block}", e.mend()));
    }
}

#[test]
fn nothing_is_allowed_by_nothing() {
    let none = Policies::new(std::iter::empty::<(Name, String)>()).unwrap();
    let decision = none.decide(&caller("ann", &["administrators"]), Action::Sign, &key("a"), &Facts::default());
    assert_eq!(*decision, Decision::default());
}

#[test]
fn administrators_may_do_everything_and_others_nothing() {
    let first = Policies::new([(name(ADMINISTRATORS), ADMINISTRATORS_TEXT)]).unwrap();
    for (action, target) in [(Action::Sign, key("a")), (Action::Backup, Target::named(Resource::Service))] {
        let ask = |caller: &Caller| first.decide(caller, action, &target, &Facts::default());
        assert_eq!(ask(&caller("ann", &["administrators"])).because, ["administrators#1"]);
        assert!(!ask(&caller("administrators", &["administrator"])).allow);
        assert!(!ask(&Caller::system("rotation", "r")).allow);
    }
}

#[test]
fn an_action_is_refused_on_what_it_does_not_apply_to() {
    let first = Policies::new([(name(ADMINISTRATORS), ADMINISTRATORS_TEXT)]).unwrap();
    let ann = caller("ann", &["administrators"]);
    let decision = first.decide(&ann, Action::Sign, &Target::named(Resource::Service), &Facts::default());
    assert_eq!((decision.allow, decision.errors.len()), (false, 1));
}

#[test]
fn forbid_wins_over_permit() {
    let both =
        policies(&[ADMINISTRATORS_TEXT, "forbid (principal, action, resource in Signet::Namespace::\"locked\");"]);
    let ann = caller("ann", &["administrators"]);
    assert!(both.decide(&ann, Action::Sign, &key("open:k"), &Facts::default()).allow);
    let decision = both.decide(&ann, Action::Sign, &key("locked:k"), &Facts::default());
    assert_eq!((decision.allow, decision.because.as_slice()), (false, ["p1#1".to_owned()].as_slice()));
}

#[test]
fn a_failing_statement_refuses() {
    let forbid = "forbid (principal, action == Signet::Action::\"Sign\", resource is Signet::Key) \
                  when { resource.labels.contains(\"restricted=yes\") };";
    let overflow = "permit (principal, action, resource) when { 9223372036854775807 + 1 == 0 };";
    let ann = caller("ann", &["administrators"]);
    for broken in [forbid, overflow] {
        let both = policies(&[ADMINISTRATORS_TEXT, broken]);
        let decision = both.decide(&ann, Action::Sign, &key("unknown"), &Facts::default());
        assert!(!decision.allow && decision.because.is_empty() && decision.errors.len() == 1, "{decision:?}");
    }
}

#[test]
fn keys_without_facts_are_not_allowed_by_accident() {
    let careless = policies(&["permit (principal, action == Signet::Action::\"Sign\", resource is Signet::Key) \
                               unless { resource.labels.contains(\"restricted=yes\") };"]);
    let (device, none) = (name("hsm"), BTreeMap::new());
    let ann = caller("ann", &[]);
    assert!(!careless.decide(&ann, Action::Sign, &key("k"), &Facts::default()).allow);
    assert!(careless.decide(&ann, Action::Sign, &with_labels(&key("k"), &device, &none), &Facts::default()).allow);
}

#[test]
fn a_remembered_decision_knows_changed_labels_and_groups() {
    let by_label = policies(&["permit (principal in Signet::Group::\"g\", action == Signet::Action::\"Sign\", \
                               resource is Signet::Key) when { resource.labels.contains(\"open=yes\") };"]);
    let (device, open, shut) = (name("hsm"), labels(&[("open", "yes")]), labels(&[("open", "no")]));
    for (groups, labels, expected) in
        [(&["g"][..], &open, true), (&["g"], &shut, false), (&["h"], &open, false), (&["g"], &open, true)]
    {
        let target = with_labels(&key("k"), &device, labels);
        for _ in 0..2 {
            let ann = caller("ann", groups);
            assert_eq!(by_label.decide(&ann, Action::Sign, &target, &Facts::default()).allow, expected);
        }
    }
}

#[test]
fn questions_with_too_many_candidates_to_remember_are_decided_alike() {
    let many = "permit (principal, action == Signet::Action::\"WhoAmI\", resource);".repeat(MAX_REMEMBERED + 1);
    let many = policies(&[&many]);
    for _ in 0..2 {
        let target = Target::named(Resource::Service);
        let decision = many.decide(&caller("ann", &[]), Action::WhoAmI, &target, &Facts::default());
        assert_eq!((decision.allow, decision.because.len()), (true, MAX_REMEMBERED + 1));
    }
}

#[test]
fn names_of_pairs_cannot_pretend_to_have_values() {
    let one = vocabulary::pair("a", "b=c");
    let other = vocabulary::pair("a=b", "c");
    assert_eq!((one.as_str(), other.as_str()), ("a=b=c", "a\\=b=c"));
    assert_ne!(vocabulary::pair("a\\", "=b"), vocabulary::pair("a\\=", "b"));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let cases = [
        ("permit (principal, action, resource)", "line 1, column 37: unexpected end of input", Kind::Invalid),
        (
            "\n  permit (principal, action == Signet::Action::\"Sing\", resource);",
            "line 2, column 32: unrecognized action",
            Kind::Invalid,
        ),
        (
            "permit (principal, action == Signet::Action::\"Sign\", resource)\nwhen { resource.lables == 1 };",
            "line 2, column 8: attribute `lables` on entity type `Signet::Key` not found",
            Kind::Invalid,
        ),
        (
            "permit (principal, action == Signet::Action::\"Sign\", resource is Signet::Service);",
            "line 1",
            Kind::Invalid,
        ),
        ("permit (principal == ?principal, action, resource);", "is a template", Kind::Invalid),
        (
            "permit (principal, action, resource) when { principal.name == \"a\u{202e}b\" };",
            "a\\u{202e}b",
            Kind::Invalid,
        ),
        ("// nothing", "has no statement", Kind::Invalid),
        ("permit (principal, action, resource) when { context.digest == \"sha256\" };", "optional", Kind::Invalid),
        (&"(".repeat(1000), "nests too deeply", Kind::Limit),
        (&" ".repeat(MAX_POLICY_BYTES + 1), "bytes", Kind::Limit),
    ];
    for (text, expected, kind) in cases {
        let error = validate(&name("wrong"), text).unwrap_err();
        assert!(error.public().contains(expected), "{expected:?} is not in {:?}", error.public());
        assert!(error.public().starts_with("policy wrong"), "{error}");
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn statements_and_names_are_counted() {
    let many =
        "permit (principal == Signet::Identity::\"a\", action == Signet::Action::\"WhoAmI\", resource);".repeat(600);
    let error = Policies::new((0..17).map(|n| (name(&format!("p{n}")), many.clone()))).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    let twice = [(name("a"), ADMINISTRATORS_TEXT), (name("a"), ADMINISTRATORS_TEXT)];
    assert_eq!(Policies::new(twice).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn renewing_keeps_what_is_the_same_and_forgets_the_rest() {
    let old = policies(&[ADMINISTRATORS_TEXT]);
    let ann = caller("ann", &["administrators"]);
    assert!(old.decide(&ann, Action::Sign, &key("a"), &Facts::default()).allow);
    let shut = old.renewed([(name("p0"), "forbid (principal, action, resource);")]).unwrap();
    assert!(!shut.decide(&ann, Action::Sign, &key("a"), &Facts::default()).allow);
    let same = old.renewed([(name("p0"), ADMINISTRATORS_TEXT)]).unwrap();
    assert!(Arc::ptr_eq(&same.stored[&name("p0")], &old.stored[&name("p0")]));
}

#[test]
fn explanations_name_every_candidate() {
    let both = policies(&[
        ADMINISTRATORS_TEXT,
        "forbid (principal, action == Signet::Action::\"Sign\", resource) when { context has digest };\n\
         forbid (principal, action == Signet::Action::\"Wrap\", resource);",
    ]);
    let ann = caller("ann", &["administrators"]);
    let explain = |facts: &Facts<'_>| {
        let explanation = both.explain(&ann, Action::Sign, &key("a"), facts);
        assert_eq!(explanation.decision, *both.decide(&ann, Action::Sign, &key("a"), facts));
        explanation.candidates.into_iter().map(|c| (c.id, c.outcome)).collect::<Vec<_>>()
    };
    let digest = Facts { digest: Some(Hash::Sha256), ..Facts::default() };
    assert_eq!(explain(&digest), [("p0#1".into(), Outcome::Allowed), ("p1#1".into(), Outcome::Forbade)]);
    assert_eq!(explain(&Facts::default()), [("p0#1".into(), Outcome::Allowed), ("p1#1".into(), Outcome::DidNotApply)]);
}

#[test]
fn who_can_names_those_who_are_allowed() {
    let one = policies(&["permit (principal in Signet::Group::\"g\", action == Signet::Action::\"Sign\", resource);"]);
    let list = [("ann", "g"), ("bob", "h"), ("cy", "g")].map(|(who, group)| (name(who), Arc::from([name(group)])));
    assert_eq!(one.who_can(Action::Sign, &key("k"), &Facts::default(), list), [name("ann"), name("cy")]);
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_in_its_range() {
    let office = policies(&["permit (principal, action == Signet::Action::\"WhoAmI\", resource) \
                             when { context has address && context.address.isInRange(ip(\"10.0.0.0/8\")) };"]);
    for (address, expected) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("::1", false)] {
        let ann = Caller { address: Some(address.parse().unwrap()), ..caller("ann", &[]) };
        let target = Target::named(Resource::Service);
        assert_eq!(office.decide(&ann, Action::WhoAmI, &target, &Facts::default()).allow, expected, "{address}");
    }
}

#[test]
fn times_that_cedar_cannot_hold_are_refused() {
    let timed = policies(&[
        "permit (principal, action, resource) when { context has time && context.time > datetime(\"2026-01-01\") };",
    ]);
    for (time, expected) in
        [("2026-06-01T00:00:00Z", true), ("2025-01-01T00:00:00Z", false), ("-000100-01-01T00:00:00Z", false)]
    {
        let facts = Facts { time: Some(time.parse().unwrap()), ..Facts::default() };
        let decision = timed.decide(&caller("ann", &[]), Action::WhoAmI, &Target::named(Resource::Service), &facts);
        assert_eq!(decision.allow, expected, "{time}: {decision:?}");
    }
}

// From here on: any set of statements and any request of a small world, judged by Cedar over the whole set.

const IDENTITIES: [&str; 3] = ["ann", "bob", "cy"];
const GROUPS: [&str; 3] = ["g0", "g1", "administrators"];
const KEYS: [&str; 4] = ["n0:a", "n0:b", "n1:a", "n1:c"];
const ACTIONS: [Action; 7] = [
    Action::Sign,
    Action::Wrap,
    Action::ReadKey,
    Action::ListKeys,
    Action::ReadStatus,
    Action::RevokeToken,
    Action::IssueCertificate,
];

fn principal_scope() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("principal".to_owned()),
        Just("principal is Signet::Identity".to_owned()),
        Just("principal is Signet::System".to_owned()),
        prop::sample::select(&IDENTITIES[..]).prop_map(|who| format!("principal == Signet::Identity::\"{who}\"")),
        prop::sample::select(&IDENTITIES[..]).prop_map(|who| format!("principal in Signet::Identity::\"{who}\"")),
        prop::sample::select(&GROUPS[..]).prop_map(|group| format!("principal in Signet::Group::\"{group}\"")),
        prop::sample::select(&GROUPS[..])
            .prop_map(|group| format!("principal is Signet::Identity in Signet::Group::\"{group}\"")),
    ]
}

fn action_scope() -> impl Strategy<Value = String> {
    let quoted = |action: &Action| format!("Signet::Action::\"{action}\"");
    prop_oneof![
        2 => Just("action".to_owned()),
        1 => prop::sample::select(&ACTIONS[..]).prop_map(move |action| format!("action == {}", quoted(&action))),
        1 => prop::sample::select(&ACTIONS[..]).prop_map(move |action| format!("action in {}", quoted(&action))),
        2 => prop::sample::subsequence(&ACTIONS[..], 0..4).prop_map(move |some| {
            format!("action in [{}]", some.iter().map(quoted).collect::<Vec<_>>().join(", "))
        }),
    ]
}

fn resource_scope() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("resource".to_owned()),
        1 => prop::sample::select(&["Key", "Issuer", "Namespace", "Service"][..]).prop_map(|kind| format!("resource is Signet::{kind}")),
        1 => prop::sample::select(&KEYS[..]).prop_map(|key| format!("resource == Signet::Key::\"{key}\"")),
        1 => prop::sample::select(&KEYS[..]).prop_map(|key| format!("resource in Signet::Key::\"{key}\"")),
        2 => (0..2_u8).prop_map(|n: u8| format!("resource in Signet::Namespace::\"n{n}\"")),
        1 => (0..2_u8).prop_map(|n: u8| format!("resource == Signet::Namespace::\"n{n}\"")),
        1 => (0..2_u8).prop_map(|n: u8| format!("resource is Signet::Key in Signet::Namespace::\"n{n}\"")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let terms = [
        "true",
        "principal.name == \"ann\"",
        "principal in Signet::Group::\"g0\"",
        "resource is Signet::Key && resource.labels.contains(\"l=1\")",
        "resource is Signet::Key && resource.purpose == \"sign\"",
        "resource is Signet::Key && resource has domain && resource.domain == \"jwt\"",
        "resource is Signet::Key && resource.name like \"a*\"",
        "resource in Signet::Namespace::\"n1\"",
        "context has context && context.context.contains(\"c=1\")",
        "context has digest && context.digest == \"sha256\"",
        "context has address && context.address.isInRange(ip(\"10.0.0.0/8\"))",
        "context has name && context.name like \"dns:*.fleet.example\"",
        "context has subject && context.subject has common_name && context.subject.common_name like \"a*\"",
        "resource is Signet::Issuer && resource.namespace == \"n1\" && context has profile",
        "context has credential && context.credential == \"token\"",
        "context has time && context.time < datetime(\"2026-07-01\")",
        "9223372036854775807 + 1 == 0",
    ];
    let word = prop::sample::select(&["when", "unless"][..]);
    let one = (word, prop::sample::select(terms.to_vec())).prop_map(|(word, term)| format!("{word} {{ {term} }}"));
    prop::collection::vec(one, 0..3).prop_map(|all| all.join(" "))
}

fn statement_text() -> impl Strategy<Value = String> {
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, principal_scope(), action_scope(), resource_scope(), condition())
        .prop_map(|(effect, p, a, r, c)| format!("{effect} ({p}, {a}, {r}) {c};"))
}

#[derive(Clone, Debug)]
struct Asked {
    caller: Caller,
    action: Action,
    resource: Resource,
    facts: Option<(Purpose, Option<Domain>, BTreeMap<String, String>)>,
    context: Option<Context>,
    digest: Option<Hash>,
    profile: Option<ProfileName>,
    name: Option<&'static str>,
    subject: Option<Subject>,
    time: Option<jiff::Timestamp>,
}

fn asked_caller() -> impl Strategy<Value = Caller> {
    let principal = prop_oneof![
        6 => prop::sample::select(&IDENTITIES[..]).prop_map(|who| Principal::Identity(name(who))),
        1 => Just(Principal::System("rotation")),
    ];
    let address = prop::option::of(prop::sample::select(&["10.0.0.1", "::ffff:10.9.9.9", "192.0.2.1", "::1"][..]));
    let credential = prop_oneof![
        Just(Credential::Token("0123".into())),
        Just(Credential::Certificate("ab".into())),
        Just(Credential::Process)
    ];
    let groups = prop::sample::subsequence(&GROUPS[..], 0..=GROUPS.len());
    (principal, groups, address, credential).prop_map(|(principal, groups, address, credential)| Caller {
        groups: match principal {
            Principal::Identity(_) => groups.into_iter().map(name).collect(),
            Principal::System(_) => Arc::from([]),
        },
        principal,
        credential,
        address: address.map(|text| text.parse::<IpAddr>().unwrap()),
        request_id: "r".into(),
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let keyed = (prop::sample::select(&ACTIONS[..3]), prop::sample::select(&KEYS[..]))
        .prop_map(|(action, key)| (action, Resource::Key(key.parse::<KeyName>().unwrap())));
    let pair = prop_oneof![
        6 => keyed,
        1 => (0..2_u8).prop_map(|n: u8| (Action::ListKeys, Resource::Namespace(name(&format!("n{n}"))))),
        2 => (0..2_u8).prop_map(|n: u8| (Action::IssueCertificate, Resource::Issuer(format!("n{n}:ca").parse().unwrap()))),
        1 => Just((Action::ReadStatus, Resource::Service)),
        1 => Just((Action::RevokeToken, Resource::Token("0123".into()))),
    ];
    let label = || {
        prop::option::of(0..2_u8)
            .prop_map(|l: Option<u8>| l.map(|l| ("l".to_owned(), l.to_string())).into_iter().collect())
    };
    let facts = (
        prop::sample::select(&[Purpose::Sign, Purpose::Wrap][..]),
        prop::option::of(prop::sample::select(&[Domain::Jwt, Domain::Raw][..])),
        label(),
    );
    let context = prop::option::of((0..3_u8).prop_map(|c: u8| Context::new(labels(&[("c", &c.to_string())])).unwrap()));
    let digest = prop::option::of(prop::sample::select(&[Hash::Sha256, Hash::Sha384][..]));
    let time =
        prop::option::of((1_770_000_000_i64..1_800_000_000).prop_map(|s| jiff::Timestamp::from_second(s).unwrap()));
    let certificate = (
        prop::option::of(Just("n0:server".parse::<ProfileName>().unwrap())),
        prop::option::of(prop::sample::select(&["dns:a.fleet.example", "dns:a.example"][..])),
        prop::option::of(prop::option::of(prop::sample::select(&["a", "b"][..])).prop_map(|common_name| Subject {
            common_name: common_name.map(str::to_owned),
            organization: Some("O".to_owned()),
            ..Subject::default()
        })),
    );
    (asked_caller(), pair, prop::option::weighted(0.8, facts), context, digest, certificate, time).prop_map(
        |(caller, (action, resource), facts, context, digest, (profile, name, subject), time)| {
            let facts = facts.filter(|_| matches!(resource, Resource::Key(_)));
            Asked { caller, action, resource, facts, context, digest, profile, name, subject, time }
        },
    )
}

/// The whole set, every entity and the request, told to Cedar in JSON and checked against the schema where that is
/// possible: a key without facts does not conform to it.
fn reference(texts: &[String], asked: &Asked) -> Decision {
    let schema = Vocabulary::load().unwrap().schema();
    let set = texts.iter().enumerate().map(|(n, text)| {
        cedar_policy::Policy::parse(Some(cedar_policy::PolicyId::new(format!("p{n}#1"))), text).unwrap()
    });
    let set = PolicySet::from_policies(set).unwrap();
    let id = |kind: &str, id: &str| json!({"type": format!("Signet::{kind}"), "id": id});
    let (principal, who) = match &asked.caller.principal {
        Principal::Identity(name) => (id("Identity", name.as_str()), name.to_string()),
        Principal::System(job) => (id("System", job), (*job).to_owned()),
    };
    let groups: Vec<_> = asked.caller.groups.iter().map(|group| id("Group", group.as_str())).collect();
    let mut entities = vec![json!({"uid": principal, "attrs": {"name": who}, "parents": groups})];
    entities.extend(GROUPS.iter().map(|group| json!({"uid": id("Group", group), "attrs": {}, "parents": []})));
    let (resource, attributes, parents) = match &asked.resource {
        Resource::Key(key) => {
            let mut attributes = json!({"namespace": key.namespace.as_str(), "name": key.name.as_str()});
            if let Some((purpose, domain, labels)) = &asked.facts {
                attributes["purpose"] = json!(purpose.as_str());
                attributes["algorithm"] = json!("ecdsa-p256-sha256");
                attributes["device"] = json!("hsm");
                attributes["labels"] = json!(labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>());
                if let Some(domain) = domain {
                    attributes["domain"] = json!(domain.as_str());
                }
            }
            (id("Key", &key.to_string()), attributes, vec![id("Namespace", key.namespace.as_str())])
        }
        Resource::Issuer(issuer) => {
            let attributes = json!({"namespace": issuer.namespace.as_str(), "name": issuer.name.as_str()});
            (id("Issuer", &issuer.to_string()), attributes, vec![id("Namespace", issuer.namespace.as_str())])
        }
        Resource::Namespace(name) => (id("Namespace", name.as_str()), json!({"name": name.as_str()}), vec![]),
        Resource::Service => (id("Service", "signet"), json!({}), vec![]),
        Resource::Token(token) => (id("Token", token), json!({}), vec![]),
        Resource::Policy(_) | Resource::Identity(_) | Resource::Profile(_) | Resource::AcmeEndpoint(_) => {
            unreachable!("not asked here")
        }
    };
    entities.push(json!({"uid": resource, "attrs": attributes, "parents": parents}));
    let complete = asked.facts.is_some() || !matches!(asked.resource, Resource::Key(_));
    let entities = Entities::from_json_value(json!(entities), complete.then_some(schema)).unwrap();
    let action = cedar_policy::EntityUid::from_json(id("Action", asked.action.as_str())).unwrap();
    let mut context = serde_json::Map::new();
    context.insert("credential".into(), json!(asked.caller.credential.to_string().split('/').next().unwrap()));
    let mut extension = |name: &str, function: &str, text: Option<String>| {
        if let Some(text) = text {
            context.insert(name.into(), json!({"__extn": {"fn": function, "arg": text}}));
        }
    };
    extension("address", "ip", asked.caller.address.map(|address| address.to_canonical().to_string()));
    extension("time", "datetime", asked.time.map(|time| time.to_string()));
    if let Some(entries) = &asked.context {
        context.insert(
            "context".into(),
            json!(entries.entries().iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()),
        );
    }
    if let Some(digest) = asked.digest {
        context.insert("digest".into(), json!(digest.as_str()));
    }
    if let Some(profile) = &asked.profile {
        context.insert("profile".into(), json!(profile.to_string()));
    }
    if let Some(name) = asked.name {
        context.insert("name".into(), json!(name));
    }
    if let Some(subject) = &asked.subject {
        context.insert("subject".into(), serde_json::to_value(subject).unwrap());
    }
    let context = cedar_policy::Context::from_json_value(context.into(), Some((schema, &action))).unwrap();
    let uid = |json| cedar_policy::EntityUid::from_json(json).unwrap();
    let request = Request::new(uid(principal), action, uid(resource), context, Some(schema)).unwrap();
    let response = Authorizer::new().is_authorized(&request, &set, &entities);
    let diagnostics = response.diagnostics();
    let mut because: Vec<_> = diagnostics.reason().map(ToString::to_string).collect();
    because.sort();
    let mut errors: Vec<_> = diagnostics.errors().map(ToString::to_string).collect();
    errors.sort();
    let permitted = response.decision() == cedar_policy::Decision::Allow;
    if permitted && !errors.is_empty() {
        because.clear();
    }
    Decision { allow: permitted && errors.is_empty(), because, errors }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_cedars_own(
        texts in prop::collection::vec(statement_text(), 0..24),
        questions in prop::collection::vec(asked(), 1..16),
    ) {
        let texts: Vec<_> = texts.into_iter().filter(|text| validate(&name("p"), text).is_ok()).collect();
        let policies = Policies::new(texts.iter().enumerate().map(|(n, text)| (name(&format!("p{n}")), text.as_str()))).unwrap();
        let device = name("hsm");
        for round in 0..2 {
            for asked in &questions {
                let key = asked.facts.as_ref().map(|(purpose, domain, labels)| KeyFacts {
                    purpose: *purpose, algorithm: Algorithm::EcdsaP256, domain: *domain, device: &device, labels,
                });
                let target = Target { resource: asked.resource.clone(), key };
                let facts = Facts {
                    context: asked.context.as_ref(),
                    digest: asked.digest,
                    profile: asked.profile.as_ref(),
                    name: asked.name,
                    subject: asked.subject.as_ref(),
                    time: asked.time,
                    ..Facts::default()
                };
                let decision = policies.decide(&asked.caller, asked.action, &target, &facts);
                prop_assert_eq!(&*decision, &reference(&texts, asked), "round {} of {:?} under {:#?}", round, asked, texts);
                let explanation = policies.explain(&asked.caller, asked.action, &target, &facts);
                prop_assert_eq!(&explanation.decision, &*decision);
            }
        }
    }

    #[test]
    fn any_text_is_judged_without_a_panic(text in "[ -~\\n]{0,200}") {
        let _ = validate(&name("any"), &text);
    }
}
