//! Sign and verify.

use std::sync::Arc;

use super::{Service, check_batch, item, only};
use crate::admission::{Details, Released};
use crate::error::Result;
use crate::jose::Jwk;
use crate::policy::Facts;
use crate::signing::{Input, Results, Verdict};
use crate::types::operation::{Sign, Verify};
use crate::types::{Algorithm, Caller, KeyName, SignatureFormat, Version};

/// A signature, in the form that was asked for.
#[derive(Debug)]
pub struct SignatureMade {
    /// The signature; ASCII for the form `jws`.
    pub signature: Vec<u8>,
    /// The version that made it.
    pub version: Version,
    /// What it does.
    pub algorithm: Algorithm,
    /// The thumbprint of its public key.
    pub kid: Arc<str>,
}

/// A signature that is to be verified.
#[derive(Debug)]
pub struct VerifyRequest {
    /// What was signed.
    pub input: Input,
    /// The signature.
    pub signature: Vec<u8>,
    /// Its form.
    pub form: SignatureFormat,
    /// The version that made it; the primary one where absent.
    pub version: Option<Version>,
}

impl Service {
    /// Signs one message or digest.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::sign`].
    pub async fn sign(
        &self,
        caller: &Caller,
        name: &KeyName,
        input: Input,
        form: SignatureFormat,
    ) -> Result<Released<SignatureMade>> {
        let permit = self.admit_key::<Sign>(caller, name, &sign_facts(std::slice::from_ref(&input))).await?;
        let mut details = signed_details(&input);
        let signed = self.signing.sign(&permit, name, vec![input]).await;
        let result = signed.and_then(|results| {
            (details.key_id, details.version) = (Some(results.key.record.id), Some(results.version.number()));
            only(encode(results, &[form])?)
        });
        permit.close(result, details).await
    }

    /// Signs many with one version.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::sign`].
    pub async fn sign_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        items: Vec<(Input, SignatureFormat)>,
    ) -> Result<Released<Vec<Result<SignatureMade>>>> {
        check_batch(items.len())?;
        let (inputs, forms): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let permit = self.admit_key::<Sign>(caller, name, &sign_facts(&inputs)).await?;
        let digests: Vec<_> = inputs.iter().map(describe).collect();
        let mut details = Details::default();
        let signed = self.signing.sign(&permit, name, inputs).await;
        let result = signed.and_then(|results| {
            let version = results.version.number();
            details = Details::of(results.key.record.id, version).fact("signed", digests.join(" "));
            let made = encode(results, &forms)?;
            details.items = made.iter().map(|result| item(result, Some(version), None)).collect();
            Ok(made)
        });
        permit.close(result, details).await
    }

    /// Verifies one signature by the public key of a retained version. Needs no device.
    ///
    /// # Errors
    /// Those of [`crate::signing::Signing::verify`].
    pub async fn verify(&self, caller: &Caller, name: &KeyName, request: VerifyRequest) -> Result<Released<Verdict>> {
        let permit = self.admit_key::<Verify>(caller, name, &sign_facts(std::slice::from_ref(&request.input))).await?;
        let VerifyRequest { input, signature, form, version } = request;
        let verdict = self.signing.verify(&permit, name, version, input, form, &signature);
        let details = match &verdict {
            Ok(verdict) => Details::of(verdict.key.record.id, verdict.version).fact("valid", verdict.valid),
            Err(_) => Details::default(),
        };
        permit.close(verdict, details).await
    }

    /// Verifies many.
    ///
    /// # Errors
    /// Per item, those of [`crate::signing::Signing::verify`].
    pub async fn verify_batch(
        &self,
        caller: &Caller,
        name: &KeyName,
        items: Vec<VerifyRequest>,
    ) -> Result<Released<Vec<Result<Verdict>>>> {
        check_batch(items.len())?;
        let permit = self.admit_key::<Verify>(caller, name, &[Facts::default()]).await?;
        let verdicts: Vec<_> = items
            .into_iter()
            .map(|VerifyRequest { input, signature, form, version }| {
                self.signing.verify(&permit, name, version, input, form, &signature)
            })
            .collect();
        let record = |result: &Result<Verdict>| item(result, result.as_ref().ok().map(|verdict| verdict.version), None);
        let details = Details { items: verdicts.iter().map(record).collect(), ..Details::default() };
        permit.close(Ok(verdicts), details).await
    }
}

/// One entry per hash that a digest claims, so that a policy on digests sees each.
fn sign_facts(inputs: &[Input]) -> Vec<Facts<'static>> {
    let mut hashes: Vec<_> = inputs
        .iter()
        .map(|input| match input {
            Input::Message(_) => None,
            Input::Digest(hash, _) => Some(*hash),
        })
        .collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.into_iter().map(|digest| Facts { digest, ..Facts::default() }).collect()
}

/// What was signed, for the record: a digest tells an auditor which message, and nobody what it says.
fn signed_details(input: &Input) -> Details {
    Details::default().fact("signed", describe(input))
}

fn describe(input: &Input) -> String {
    match input {
        Input::Message(message) => format!("sha256:{}", hex::encode(crate::types::sha256(&[message]))),
        Input::Digest(hash, digest) => format!("{hash}:{}", hex::encode(digest)),
    }
}

fn encode(results: Results, forms: &[SignatureFormat]) -> Result<Vec<Result<SignatureMade>>> {
    let Results { key, version, results } = results;
    let algorithm = key.record.algorithm;
    let kid = version.kid(|| Ok(Jwk::new(algorithm, &version.public_key()?)?.kid().to_owned()))?;
    let encode = |(raw, form): (Result<Vec<u8>>, &SignatureFormat)| {
        let signature = form.encode(algorithm, &raw?)?;
        Ok(SignatureMade { signature, version: version.number(), algorithm, kid: kid.clone() })
    };
    Ok(results.into_iter().zip(forms).map(encode).collect())
}
