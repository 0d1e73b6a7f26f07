//! pkilint, the second judge of certificates, revocation lists and OCSP responses.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::judges::judge;

/// What pkilint reads, in DER.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// By the rules of RFC 5280.
    Certificate(Vec<u8>),
    /// By the Baseline Requirements, as a type of theirs such as `DV-FINAL-CERTIFICATE`.
    Public(&'static str, Vec<u8>),
    /// An issuer's certificate, and one that it issued.
    Chain(Vec<u8>, Vec<u8>),
    /// A revocation list.
    List(Vec<u8>),
    /// An OCSP response.
    Response(Vec<u8>),
}

/// One complaint of pkilint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    /// `FATAL`, `ERROR`, `WARNING`, `NOTICE` or `INFO`.
    pub(crate) severity: String,
    pub(crate) code: String,
    /// Where.
    pub(crate) path: String,
}

impl Complaint {
    /// Whether it is one that no certificate of ours may cause.
    pub(crate) fn is_error(&self) -> bool {
        self.severity == "ERROR" || self.severity == "FATAL"
    }
}

/// What pkilint says of each subject, by name; nothing where it is not installed, and the test is then skipped.
pub(crate) fn pkilint(subjects: &[(String, Subject)]) -> Option<BTreeMap<String, Vec<Complaint>>> {
    let python = judge("python")?;
    judge("lint_pkix_cert")?;
    let folder = tempfile::tempdir().unwrap();
    let file = |number: usize, what: &str, bytes: &[u8]| {
        let path = folder.path().join(format!("{number}.{what}"));
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let task = |(number, (name, subject)): (usize, &(String, Subject))| {
        let (program, arguments) = match subject {
            Subject::Certificate(der) => ("lint_pkix_cert", vec![file(number, "cer", der)]),
            Subject::Public(kind, der) => {
                let mut arguments = words(&["-t", kind]);
                arguments.push(file(number, "cer", der));
                ("lint_cabf_serverauth_cert", arguments)
            }
            Subject::Chain(issuer, der) => {
                ("lint_pkix_signer_signee_cert_chain", vec![file(number, "issuer", issuer), file(number, "cer", der)])
            }
            Subject::List(der) => {
                let mut arguments = words(&["-t", "CRL", "-p", "PKIX"]);
                arguments.push(file(number, "crl", der));
                ("lint_crl", arguments)
            }
            Subject::Response(der) => ("lint_ocsp_response", vec![file(number, "ocsp", der)]),
        };
        serde_json::json!([name, program, arguments])
    };
    let tasks: Vec<_> = subjects.iter().enumerate().map(task).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/lint_all.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&tasks).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "pkilint ended with {}", output.status);
    let answers: BTreeMap<String, Vec<[String; 3]>> = serde_json::from_slice(&output.stdout).unwrap();
    let complaint = |[severity, code, path]: [String; 3]| Complaint { severity, code, path };
    Some(answers.into_iter().map(|(name, found)| (name, found.into_iter().map(complaint).collect())).collect())
}
