//! The table of all routes. The router, the OpenAPI document and the test that crosses every route with every kind of
//! identity are made from it; what is not here does not exist.

use std::sync::LazyLock;

use http::{Method, StatusCode};

use super::row::{Content, IDEMPOTENT, Parameter, RouteRow, route};
use super::{
    acme, announcements, audit, certificates, identities, issuers, keys, mac, openapi, policies, profiles, sign,
    system, tokens, versions, wrap,
};
use crate::types::Action;

/// The most bytes of a body: 64 KiB of plaintext in base64, with a context and room to spare.
pub const BODY: usize = 128 * 1024;
/// The most bytes of the body of a batch.
pub const BATCH_BODY: usize = 8 * 1024 * 1024;
/// The most bytes of the body of a policy: 64 KiB of text, escaped.
pub const POLICY_BODY: usize = 128 * 1024;

const PAGE: [Parameter; 2] = [
    Parameter {
        name: "page_size",
        kind: "integer",
        about: "how many items at most: 1 to 1000, 100 where absent",
        required: false,
    },
    Parameter { name: "page_token", kind: "string", about: "`next_page_token` of the page before", required: false },
];
/// The most bytes of the body of a certificate chain.
const CHAIN_BODY: usize = 1024 * 1024;

const fn text(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, kind: "string", about, required: false }
}

const SEARCH: &[Parameter] = &[
    text("issuer", "only those of that issuer"),
    text("namespace", "only those of the issuers of that namespace"),
    text("profile", "only those from that profile"),
    text("requester", "only those that this one asked for, as in the audit log: identity/NAME"),
    text("name", "only those with that name, as dns:web.example.com"),
    text("expires_before", "only those that end before that time"),
    text("expires_after", "only those that end at that time or later; now where only expires_before is there"),
    PAGE[0],
    PAGE[1],
];

const NAMESPACE: Parameter = Parameter {
    name: "namespace",
    kind: "string",
    about: "only what is in that namespace; all where absent",
    required: false,
};
const AFTER: Parameter = Parameter {
    name: "after",
    kind: "string",
    about: "how long the destruction can be cancelled: 30d where absent, at least 1d",
    required: false,
};
const VERSION: Parameter =
    Parameter { name: "version", kind: "integer", about: "the version; the primary one where absent", required: false };
const NONCE: Parameter = Parameter {
    name: "nonce",
    kind: "string",
    about: "16 to 64 bytes in hexadecimal digits: the device signs anew, with them; what it signed at the birth of the version where absent",
    required: false,
};
const FIRST: Parameter = Parameter {
    name: "first",
    kind: "integer",
    about: "the index of the first record; the last ones where absent",
    required: false,
};
const LIMIT: Parameter = Parameter {
    name: "limit",
    kind: "integer",
    about: "how many records at most: 1 to 1000, 100 where absent",
    required: false,
};

const IF_MATCH: Parameter = Parameter {
    name: "If-Match",
    kind: "string",
    about: "the ETag of what is changed, in double quotes",
    required: true,
};
const MAY_MATCH: Parameter = Parameter {
    name: "If-Match",
    kind: "string",
    about: "the ETag of what is replaced, in double quotes",
    required: false,
};

const CHANGE: &[Parameter] = &[IDEMPOTENT];

static TABLE: LazyLock<Vec<RouteRow>> = LazyLock::new(|| {
    let mut rows = Vec::new();
    rows.extend(of_keys());
    rows.extend(of_versions());
    rows.extend(of_cryptography());
    rows.extend(of_issuers());
    rows.extend(of_certificates());
    rows.extend(of_access());
    rows.extend(of_acme());
    rows.extend(of_service());
    rows
});

/// All routes.
#[must_use]
pub fn table() -> &'static [RouteRow] {
    &TABLE
}

/// Method and path of the routes without authentication.
pub fn open_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    table().iter().filter(|row| row.open()).map(|row| (row.method.as_str(), row.path))
}

fn of_keys() -> Vec<RouteRow> {
    vec![
        route(Method::POST, "/api/v1/keys", "Makes a key and its first version")
            .action(&[Action::CreateKey])
            .headers(CHANGE)
            .success(StatusCode::CREATED)
            .json(BODY, keys::create),
        route(Method::POST, "/api/v1/keys-batch", "Makes many wrapped keys, all of them or none")
            .action(&[Action::CreateKey])
            .headers(CHANGE)
            .success(StatusCode::CREATED)
            .json(BATCH_BODY, keys::create_batch),
        route(Method::GET, "/api/v1/keys", "Lists the keys that the caller may read")
            .action(&[Action::ListKeys])
            .query(const { &[NAMESPACE, PAGE[0], PAGE[1]] })
            .bare(keys::list),
        route(Method::GET, "/api/v1/keys/{key}", "Reads a key").action(&[Action::ReadKey]).bare(keys::read),
        route(Method::PATCH, "/api/v1/keys/{key}", "Changes labels, rotation, retention or deletion protection")
            .action(&[Action::UpdateKey])
            .headers(&[IF_MATCH, IDEMPOTENT])
            .json(BODY, keys::update),
        route(Method::DELETE, "/api/v1/keys/{key}", "Schedules the destruction of all versions")
            .action(&[Action::ScheduleDestruction])
            .query(&[AFTER])
            .headers(CHANGE)
            .bare(keys::delete),
        route(Method::POST, "/api/v1/keys/{key}/rotate", "Makes a new primary version, or prepares one")
            .action(&[Action::RotateKey])
            .headers(CHANGE)
            .optional_json(BODY, keys::rotate),
        route(Method::GET, "/api/v1/keys/{key}/public-key", "Reads a public key in PEM and as a JWK")
            .action(&[Action::ReadPublicKey])
            .query(&[VERSION])
            .bare(keys::public_key),
        route(
            Method::GET,
            "/api/v1/keys/{key}/attestation",
            "Reads what the device says of a version, signed in the device",
        )
        .action(&[Action::ReadKey])
        .query(&[VERSION, NONCE])
        .bare(keys::attestation),
    ]
}

fn of_versions() -> Vec<RouteRow> {
    let step = |path, summary, action| route(Method::POST, path, summary).action(action).headers(CHANGE);
    vec![
        route(Method::GET, "/api/v1/keys/{key}/versions", "Lists the versions of a key")
            .action(&[Action::ReadKey])
            .query(&PAGE)
            .bare(versions::list),
        route(Method::GET, "/api/v1/keys/{key}/versions/{version}", "Reads a version")
            .action(&[Action::ReadKey])
            .bare(versions::read),
        step(
            "/api/v1/keys/{key}/versions/{version}/activate",
            "Makes a prepared version the primary one",
            &[Action::ActivateVersion],
        )
        .bare(versions::activate),
        step(
            "/api/v1/keys/{key}/versions/{version}/suspend",
            "Stops every use of a version for now",
            &[Action::SuspendVersion],
        )
        .bare(versions::suspend),
        step("/api/v1/keys/{key}/versions/{version}/resume", "Undoes a suspension", &[Action::ResumeVersion])
            .bare(versions::resume),
        step(
            "/api/v1/keys/{key}/versions/{version}/deactivate",
            "Ends the use of a version to protect",
            &[Action::DeactivateVersion],
        )
        .bare(versions::deactivate),
        step(
            "/api/v1/keys/{key}/versions/{version}/compromise",
            "Declares a version compromised",
            &[Action::CompromiseVersion],
        )
        .bare(versions::compromise),
        step(
            "/api/v1/keys/{key}/versions/{version}/schedule-destruction",
            "Starts the waiting period before a version is destroyed",
            &[Action::ScheduleDestruction],
        )
        .optional_json(BODY, versions::schedule_destruction),
        step(
            "/api/v1/keys/{key}/versions/{version}/cancel-destruction",
            "Stops a scheduled destruction",
            &[Action::CancelDestruction],
        )
        .bare(versions::cancel_destruction),
    ]
}

fn of_cryptography() -> Vec<RouteRow> {
    let post = |path, summary, action| route(Method::POST, path, summary).action(action);
    const WRAP: &[Action] = &[Action::Wrap];
    const UNWRAP: &[Action] = &[Action::Unwrap, Action::UnwrapCompromised];
    const REWRAP: &[Action] = &[Action::Rewrap];
    const DATA_KEY: &[Action] = &[Action::GenerateDataKey];
    const SIGN: &[Action] = &[Action::Sign];
    const VERIFY: &[Action] = &[Action::Verify];
    const MAC: &[Action] = &[Action::Mac];
    const VERIFY_MAC: &[Action] = &[Action::VerifyMac];
    vec![
        post("/api/v1/keys/{key}/wrap", "Wraps a plaintext", WRAP).json(BODY, wrap::wrap),
        post("/api/v1/keys/{key}/wrap-batch", "Wraps many plaintexts", WRAP).json(BATCH_BODY, wrap::wrap_batch),
        post("/api/v1/keys/{key}/unwrap", "Unwraps a ciphertext", UNWRAP).json(BODY, wrap::unwrap),
        post("/api/v1/keys/{key}/unwrap-batch", "Unwraps many ciphertexts", &[Action::Unwrap])
            .json(BATCH_BODY, wrap::unwrap_batch),
        post("/api/v1/keys/{key}/rewrap", "Moves a ciphertext to the newest version, or to another key", REWRAP)
            .json(BODY, wrap::rewrap),
        post("/api/v1/keys/{key}/rewrap-batch", "Moves many ciphertexts", REWRAP).json(BATCH_BODY, wrap::rewrap_batch),
        post("/api/v1/keys/{key}/datakey", "Makes a random data key and wraps it", DATA_KEY).json(BODY, wrap::data_key),
        post("/api/v1/keys/{key}/datakey-batch", "Makes many data keys", DATA_KEY)
            .json(BATCH_BODY, wrap::data_key_batch),
        post("/api/v1/keys/{key}/sign", "Signs a message or a digest", SIGN).json(BODY, sign::sign),
        post("/api/v1/keys/{key}/sign-batch", "Signs many messages or digests", SIGN)
            .json(BATCH_BODY, sign::sign_batch),
        post("/api/v1/keys/{key}/verify", "Verifies a signature", VERIFY).json(BODY, sign::verify),
        post("/api/v1/keys/{key}/verify-batch", "Verifies many signatures", VERIFY)
            .json(BATCH_BODY, sign::verify_batch),
        post("/api/v1/keys/{key}/mac", "Makes a message authentication code", MAC).json(BODY, mac::mac),
        post("/api/v1/keys/{key}/mac-batch", "Makes many message authentication codes", MAC)
            .json(BATCH_BODY, mac::mac_batch),
        post("/api/v1/keys/{key}/mac-verify", "Checks a message authentication code", VERIFY_MAC)
            .json(BODY, mac::verify),
        post("/api/v1/keys/{key}/mac-verify-batch", "Checks many message authentication codes", VERIFY_MAC)
            .json(BATCH_BODY, mac::verify_batch),
    ]
}

fn of_issuers() -> Vec<RouteRow> {
    let post = |path, summary, action| route(Method::POST, path, summary).action(action).headers(CHANGE);
    const ROTATE: &[Action] = &[Action::RotateIssuer];
    vec![
        post(
            "/api/v1/issuers",
            "Makes an issuer, its key and its first certificate or request",
            &[Action::CreateIssuer],
        )
        .success(StatusCode::CREATED)
        .json(BODY, issuers::create),
        route(Method::GET, "/api/v1/issuers", "Lists the issuers that the caller may read")
            .action(&[Action::ListIssuers])
            .query(const { &[NAMESPACE, PAGE[0], PAGE[1]] })
            .bare(issuers::list),
        route(Method::GET, "/api/v1/issuers/{issuer}", "Reads an issuer and its certificates")
            .action(&[Action::ReadIssuer])
            .bare(issuers::read),
        route(Method::PATCH, "/api/v1/issuers/{issuer}", "Changes the rules of an issuer, or stops it")
            .action(&[Action::UpdateIssuer])
            .headers(&[IF_MATCH, IDEMPOTENT])
            .json(BODY, issuers::update),
        post("/api/v1/issuers/{issuer}/rotate", "Makes the next version of an issuer, and publishes it", ROTATE)
            .optional_json(BODY, issuers::rotate),
        post("/api/v1/issuers/{issuer}/activate", "Puts a prepared version of an issuer in force", ROTATE)
            .json(BODY, issuers::activate),
        post(
            "/api/v1/issuers/{issuer}/import",
            "Gives an issuer the certificate that an outside authority made for it",
            &[Action::ImportIssuerCertificate],
        )
        .json(CHAIN_BODY, issuers::import),
        post(
            "/api/v1/issuers/{issuer}/cross-sign",
            "Has another issuer certify the newest version of this one as well",
            &[Action::UpdateIssuer],
        )
        .json(BODY, issuers::cross_sign),
        post(
            "/api/v1/issuers/{issuer}/revoke",
            "Revokes every certificate of an issuer that is not over",
            &[Action::RevokeCertificate],
        )
        .json(BODY, certificates::revoke_all),
        post(
            "/api/v1/issuers/{issuer}/announcements",
            "Announces that certificates of an issuer will be revoked at a time, or are to be replaced until then",
            &[Action::WriteAnnouncement],
        )
        .success(StatusCode::CREATED)
        .json(BODY, announcements::create),
        route(Method::GET, "/api/v1/issuers/{issuer}/announcements", "Lists the announcements of an issuer")
            .action(&[Action::ReadAnnouncement])
            .query(&PAGE)
            .bare(announcements::list),
        route(
            Method::DELETE,
            "/api/v1/issuers/{issuer}/announcements/{id}",
            "Takes an announcement back before its time",
        )
        .action(&[Action::DeleteAnnouncement])
        .headers(CHANGE)
        .success(StatusCode::NO_CONTENT)
        .bare(announcements::cancel),
        route(Method::GET, "/api/v1/profiles", "Lists the profiles that the caller may read")
            .action(&[Action::ReadProfile])
            .query(const { &[NAMESPACE, PAGE[0], PAGE[1]] })
            .bare(profiles::list),
        route(Method::GET, "/api/v1/profiles/{profile}", "Reads a profile")
            .action(&[Action::ReadProfile])
            .bare(profiles::read),
        route(Method::PUT, "/api/v1/profiles/{profile}", "Stores a profile")
            .action(&[Action::WriteProfile])
            .headers(&[MAY_MATCH, IDEMPOTENT])
            .json(BODY, profiles::write),
        route(Method::DELETE, "/api/v1/profiles/{profile}", "Removes a profile")
            .action(&[Action::DeleteProfile])
            .headers(CHANGE)
            .success(StatusCode::NO_CONTENT)
            .bare(profiles::delete),
    ]
}

fn of_certificates() -> Vec<RouteRow> {
    const ISSUE: &[Action] = &[Action::IssueCertificate, Action::SignIntermediate];
    vec![
        route(Method::POST, "/api/v1/issuers/{issuer}/issue", "Issues a certificate")
            .action(ISSUE)
            .headers(CHANGE)
            .success(StatusCode::CREATED)
            .json(BODY, certificates::issue),
        route(Method::POST, "/api/v1/issuers/{issuer}/issue-batch", "Issues many certificates from one profile")
            .action(ISSUE)
            .headers(CHANGE)
            .json(BATCH_BODY, certificates::issue_batch),
        route(Method::GET, "/api/v1/certificates", "Searches certificates; the newest first, or the soonest to end")
            .action(&[Action::ListCertificates])
            .query(SEARCH)
            .bare(certificates::search),
        route(Method::GET, "/api/v1/certificates/{serial}", "Reads a certificate and its chain")
            .action(&[Action::ReadCertificate])
            .bare(certificates::read),
        route(Method::GET, "/api/v1/certificates/{serial}/renewal", "Reads when a certificate should be renewed")
            .action(&[Action::ReadRenewal])
            .bare(certificates::renewal),
        route(Method::POST, "/api/v1/certificates/{serial}/revoke", "Revokes a certificate for good")
            .action(&[Action::RevokeCertificate])
            .headers(CHANGE)
            .optional_json(BODY, certificates::revoke),
    ]
}

fn of_access() -> Vec<RouteRow> {
    vec![
        route(Method::POST, "/api/v1/tokens", "Makes a bearer token, which is shown once")
            .action(&[Action::CreateToken])
            .headers(CHANGE)
            .success(StatusCode::CREATED)
            .json(BODY, tokens::create),
        route(Method::GET, "/api/v1/tokens", "Lists tokens")
            .action(&[Action::ReadToken])
            .query(&PAGE)
            .bare(tokens::list),
        route(Method::GET, "/api/v1/tokens/{id}", "Reads what is known of a token")
            .action(&[Action::ReadToken])
            .bare(tokens::read),
        route(Method::DELETE, "/api/v1/tokens/{id}", "Revokes a token")
            .action(&[Action::RevokeToken])
            .headers(CHANGE)
            .bare(tokens::revoke),
        route(Method::GET, "/api/v1/whoami", "Tells who the service takes the caller for")
            .action(&[Action::WhoAmI])
            .bare(system::who_am_i),
        route(Method::GET, "/api/v1/identities", "Lists identities")
            .action(&[Action::ReadIdentity])
            .query(&PAGE)
            .bare(identities::list),
        route(Method::GET, "/api/v1/identities/{name}", "Reads an identity")
            .action(&[Action::ReadIdentity])
            .bare(identities::read),
        route(Method::PUT, "/api/v1/identities/{name}", "Stores an identity that proves itself by a certificate")
            .action(&[Action::WriteIdentity])
            .headers(CHANGE)
            .json(BODY, identities::write),
        route(Method::DELETE, "/api/v1/identities/{name}", "Removes an identity")
            .action(&[Action::DeleteIdentity])
            .headers(CHANGE)
            .success(StatusCode::NO_CONTENT)
            .bare(identities::delete),
        route(Method::GET, "/api/v1/policies", "Lists policies")
            .action(&[Action::ReadPolicy])
            .query(&PAGE)
            .bare(policies::list),
        route(Method::GET, "/api/v1/policies/{name}", "Reads a policy")
            .action(&[Action::ReadPolicy])
            .bare(policies::read),
        route(Method::PUT, "/api/v1/policies/{name}", "Stores a policy and puts it in force")
            .action(&[Action::WritePolicy])
            .headers(&[MAY_MATCH, IDEMPOTENT])
            .json(POLICY_BODY, policies::write),
        route(Method::DELETE, "/api/v1/policies/{name}", "Removes a policy")
            .action(&[Action::DeletePolicy])
            .headers(CHANGE)
            .success(StatusCode::NO_CONTENT)
            .bare(policies::delete),
        route(Method::POST, "/api/v1/policies/explain", "Tells why somebody may, or may not")
            .action(&[Action::ReadPolicy])
            .json(BODY, policies::explain),
    ]
}

fn of_acme() -> Vec<RouteRow> {
    vec![
        route(Method::POST, "/api/v1/acme/endpoints", "Makes an ACME endpoint")
            .action(&[Action::WriteAcmeEndpoint])
            .headers(CHANGE)
            .success(StatusCode::CREATED)
            .json(BODY, acme::create),
        route(Method::GET, "/api/v1/acme/endpoints", "Lists ACME endpoints")
            .action(&[Action::ReadAcmeEndpoint])
            .query(const { &[NAMESPACE, PAGE[0], PAGE[1]] })
            .bare(acme::list),
        route(Method::GET, "/api/v1/acme/endpoints/{endpoint}", "Reads an ACME endpoint")
            .action(&[Action::ReadAcmeEndpoint])
            .bare(acme::read),
        route(
            Method::POST,
            "/api/v1/acme/endpoints/{endpoint}/eab-keys",
            "Makes a key that binds ACME accounts to an identity, which is shown once",
        )
        .action(&[Action::CreateEabKey])
        .headers(CHANGE)
        .success(StatusCode::CREATED)
        .json(BODY, acme::create_eab),
        route(Method::GET, "/api/v1/acme/endpoints/{endpoint}/eab-keys", "Lists the binding keys of an ACME endpoint")
            .action(&[Action::ReadEabKey])
            .query(&PAGE)
            .bare(acme::list_eab),
        route(
            Method::DELETE,
            "/api/v1/acme/endpoints/{endpoint}/eab-keys/{id}",
            "Revokes a binding key: the accounts that it bound are refused",
        )
        .action(&[Action::RevokeEabKey])
        .headers(CHANGE)
        .bare(acme::revoke_eab),
        route(
            Method::DELETE,
            "/api/v1/acme/endpoints/{endpoint}",
            "Removes an ACME endpoint with its accounts and orders",
        )
        .action(&[Action::DeleteAcmeEndpoint])
        .headers(CHANGE)
        .success(StatusCode::NO_CONTENT)
        .bare(acme::delete),
    ]
}

fn of_service() -> Vec<RouteRow> {
    vec![
        route(Method::GET, "/api/v1/audit/records", "Reads records of the audit log")
            .action(&[Action::ReadAudit])
            .query(&[FIRST, LIMIT])
            .bare(audit::records),
        route(Method::GET, "/api/v1/audit/head", "Reads the newest signed head of the audit log")
            .action(&[Action::ReadAudit])
            .bare(audit::head),
        route(
            Method::GET,
            "/api/v1/audit/records/{index}/proof",
            "Reads a record with the proof that it is in the log",
        )
        .action(&[Action::ReadAudit])
        .bare(audit::proof),
        route(
            Method::GET,
            "/api/v1/audit/heads/{size}/consistency",
            "Reads the proof that the log of so many records is the beginning of the one below the newest head",
        )
        .action(&[Action::ReadAudit])
        .bare(audit::consistency),
        route(
            Method::POST,
            "/api/v1/audit/prune",
            "Removes records from the audit log that its archive holds, or says which would go",
        )
        .action(&[Action::PruneAudit])
        .json(BODY, audit::prune),
        route(Method::GET, "/api/v1/audit/log/checkpoint", "Reads the head of the tiled log (C2SP tlog-tiles)")
            .action(&[Action::ReadAudit])
            .bare(audit::checkpoint),
        route(Method::GET, "/api/v1/audit/log/tile/{level}/{*tile}", "Reads a tile of the log (C2SP tlog-tiles)")
            .action(&[Action::ReadAudit])
            .bare(audit::tile),
        route(Method::GET, "/api/v1/status", "Reads the state of the service and its devices")
            .action(&[Action::ReadStatus])
            .bare(system::status),
        route(Method::GET, "/api/v1/metrics", "Reads the metrics in the OpenMetrics text format")
            .action(&[Action::ReadMetrics])
            .bare(system::metrics),
        route(Method::POST, "/api/v1/backup", "Takes a backup: a tar archive whose first entry is manifest.json")
            .action(&[Action::Backup])
            .bare(system::backup),
        route(Method::GET, "/api/v1/openapi.json", "Reads this document").action(&[Action::WhoAmI]).bare(openapi::read),
        route(Method::GET, "/health/live", "Whether the process runs")
            .open(Content::json::<system::Health>(), system::live),
        route(Method::GET, "/health/ready", "Whether the service can do what it should")
            .open(Content::json::<system::Health>(), system::ready),
        route(Method::GET, "/.well-known/jwks.json", "The public keys of the domain jwt, as a JWK set")
            .open(Content::json::<system::JwkSet>(), system::jwks),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::api::rest::row::Endpoint;

    #[test]
    fn rows_are_whole_and_unique() {
        let mut seen = HashSet::new();
        for row in table() {
            assert!(seen.insert((&row.method, row.path)), "{row:?} is there twice");
            assert_eq!(row.request.is_some(), row.body_limit > 0, "{row:?}");
            assert_eq!(row.actions.is_empty(), matches!(row.endpoint, Endpoint::Open(_)), "{row:?}");
            assert_eq!(row.path.starts_with("/api/v1/"), !row.open(), "{row:?}");
            let batch = row.path.ends_with("-batch");
            assert_eq!(row.body_limit == BATCH_BODY, batch, "{row:?}");
        }
    }

    #[test]
    fn every_action_that_a_client_can_ask_for_has_a_route() {
        let mut routes: BTreeMap<Action, usize> = BTreeMap::new();
        for action in table().iter().flat_map(|row| row.actions) {
            *routes.entry(*action).or_default() += 1;
        }
        let without: Vec<_> = Action::ALL.iter().filter(|action| !routes.contains_key(action)).collect();
        // Acts of the house: nobody can ask for them.
        assert_eq!(without, [&Action::DestroyVersion, &Action::SignStatus, &Action::UseAcme, &Action::Start]);
    }

    #[test]
    fn the_largest_plaintext_fits_a_body() {
        let plaintext = crate::ciphertext::MAX_PLAINTEXT.div_ceil(3) * 4;
        // A context may be escaped, each byte by up to six characters.
        assert!(plaintext + 2 * crate::types::Context::MAX_BYTES < BODY);
        const { assert!(crate::policy::MAX_POLICY_BYTES < POLICY_BODY) };
    }
}
