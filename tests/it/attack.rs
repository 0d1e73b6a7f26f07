//! The attacks on the interface of PKCS#11, by the command that an operator runs on their own token.

use std::process::Command;

use signet::device::{Attempt, Outcome};

use crate::process::Installation;
use crate::proof::proven;
use crate::server::{Devices, PROGRAM};

#[tokio::test]
async fn what_works_on_an_ordinary_key_is_refused_on_ours() {
    let t = Installation::bare(Devices::WithTpm);
    let attack = |device: &str, json: bool| {
        let mut command = Command::new(PROGRAM);
        command.args(["doctor", "--attack", device, "--config"]).arg(t.config());
        if json {
            command.arg("--json");
        }
        let out = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    // A PIN is all it takes: the token is not enrolled yet.
    let before = t.hsm.ids();
    let (code, out, err) = attack("hsm", true);
    assert_eq!(code, Some(0), "{err}");
    let attempts: Vec<Attempt> = serde_json::from_str(&out).unwrap();
    assert_eq!(t.hsm.ids(), before, "something was left in the token");
    let works = |pick: fn(&Attempt) -> &Outcome| -> Vec<&str> {
        attempts.iter().filter(|one| *pick(one) == Outcome::Works).map(|one| one.attack.as_str()).collect()
    };
    let (ordinary, ours) = (works(|one| &one.ordinary), works(|one| &one.ours));
    println!("on an ordinary key: {ordinary:#?}\non ours: {ours:#?}");
    assert!(attempts.len() > 30 && ordinary.len() >= 16, "{attempts:#?}");
    assert!(attempts.iter().all(|one| one.ours != Outcome::Works || one.owned), "{ours:?}");
    // Each refusal has a reason of its own, not a scratch key that could not be made.
    for one in &attempts {
        if let Outcome::Refused(by) = &one.ours {
            assert!(!by.starts_with("C_GenerateKey"), "{one:?}");
        }
    }
    proven(
        "attacks by the holder of a PIN",
        attempts.len(),
        &format!("{} work on an ordinary key, {} on ours, which the design names", ordinary.len(), ours.len()),
    );
    // For people.
    let (code, out, _) = attack("hsm", false);
    assert!(code == Some(0) && out.contains("refused, C_SetAttributeValue: CKR_ACTION_PROHIBITED"), "{out}");
    // What has no such interface, and what is not there.
    assert!(attack("tpm", false).2.contains("another one"));
    assert!(attack("other", false).2.contains("there is no device other"));
}
