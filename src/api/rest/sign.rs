//! Sign and verify.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::Reply;
use super::batch::{items, results};
use super::call::Call;
use crate::error::{Error, Kind, Result};
use crate::service::{Input, Released, SignatureMade, Verdict, VerifyRequest};
use crate::types::SignatureFormat;
use crate::wire::{self, Base64, Batch, BatchResults, Signed, Verified};

pub(super) async fn sign(call: Call, body: wire::Sign) -> Result<Released<Reply<Signed>>> {
    let (input, form) = request(body)?;
    let made = call.service.sign(&call.caller, &call.key()?, input, form).await?;
    Ok(made.map(|made| signed(made, form).into()))
}

pub(super) async fn sign_batch(call: Call, body: Batch<wire::Sign>) -> Result<Released<Reply<BatchResults<Signed>>>> {
    let wanted = items(body.items, request)?;
    let forms: Vec<_> = wanted.iter().map(|(_, form)| *form).collect();
    let made = call.service.sign_batch(&call.caller, &call.key()?, wanted).await?;
    Ok(made.map(|made| {
        let made = made.into_iter().zip(forms).map(|(result, form)| result.map(|made| (made, form)));
        results(&call, made.collect(), |(made, form)| signed(made, form)).into()
    }))
}

pub(super) async fn verify(call: Call, body: wire::Verify) -> Result<Released<Reply<Verified>>> {
    let verdict = call.service.verify(&call.caller, &call.key()?, verify_request(body)?).await?;
    Ok(verdict.map(|verdict| verified(&verdict).into()))
}

pub(super) async fn verify_batch(
    call: Call,
    body: Batch<wire::Verify>,
) -> Result<Released<Reply<BatchResults<Verified>>>> {
    let requests = items(body.items, verify_request)?;
    let verdicts = call.service.verify_batch(&call.caller, &call.key()?, requests).await?;
    Ok(verdicts.map(|verdicts| results(&call, verdicts, |verdict| verified(&verdict)).into()))
}

fn request(body: wire::Sign) -> Result<(Input, SignatureFormat)> {
    let wire::Sign { message, digest, format } = body;
    Ok((input(message, digest)?, format.unwrap_or(SignatureFormat::Der)))
}

fn verify_request(body: wire::Verify) -> Result<VerifyRequest> {
    let wire::Verify { message, digest, signature, format, version } = body;
    let form = format.unwrap_or(SignatureFormat::Der);
    let signature = match form {
        SignatureFormat::Jws => signature.into_bytes(),
        SignatureFormat::Der | SignatureFormat::Raw => {
            STANDARD.decode(signature).map_err(|_| Error::new(Kind::Invalid, "the signature is not base64"))?
        }
    };
    Ok(VerifyRequest { input: input(message, digest)?, signature, form, version })
}

fn input(message: Option<Base64>, digest: Option<wire::Digest>) -> Result<Input> {
    match (message, digest) {
        (Some(message), None) => Ok(Input::Message(message.0)),
        (None, Some(digest)) => Ok(Input::Digest(digest.hash, digest.value.0)),
        (None, None) | (Some(_), Some(_)) => {
            Err(Error::new(Kind::Invalid, "exactly one of message and digest is needed"))
        }
    }
}

fn signed(made: SignatureMade, form: SignatureFormat) -> Signed {
    let SignatureMade { signature, version, algorithm, kid } = made;
    let signature = match form {
        // Base64url already, and hence ASCII.
        SignatureFormat::Jws => String::from_utf8_lossy(&signature).into_owned(),
        SignatureFormat::Der | SignatureFormat::Raw => STANDARD.encode(signature),
    };
    Signed { signature, version, algorithm, kid: kid.as_ref().to_owned() }
}

pub(super) const fn verified(verdict: &Verdict) -> Verified {
    Verified { valid: verdict.valid, version: verdict.version, state: verdict.state }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Hash;

    #[test]
    fn a_request_signs_one_thing() {
        let message = || Some(Base64(vec![1]));
        let digest = || Some(wire::Digest { hash: Hash::Sha256, value: Base64(vec![2]) });
        assert!(matches!(input(message(), None).unwrap(), Input::Message(bytes) if bytes == [1]));
        assert!(matches!(input(None, digest()).unwrap(), Input::Digest(Hash::Sha256, bytes) if bytes == [2]));
        assert!(input(message(), digest()).is_err());
        assert!(input(None, None).is_err());
    }

    #[test]
    fn signatures_are_read_as_their_form_writes_them() {
        let verify = |signature: &str, format| {
            let signature = signature.to_owned();
            let message = Some(Base64(vec![1]));
            verify_request(wire::Verify { message, signature, format, ..wire::Verify::default() })
        };
        assert_eq!(verify("AQI=", None).unwrap().signature, [1, 2]);
        assert_eq!(verify("AQI", Some(SignatureFormat::Jws)).unwrap().signature, b"AQI");
        assert!(verify("AQI", Some(SignatureFormat::Raw)).is_err());
    }
}
