//! Wrap, sign and MAC, one by one and in batches. None of them changes a key, so all may be tried again.

use reqwest::Method;

use super::Client;
use crate::error::Result;
use crate::types::KeyName;
use crate::wire::{
    Batch, BatchResults, DataKey, GenerateDataKey, MacMade, MakeMac, Rewrap, Sign, Signed, Unwrap, Unwrapped, Verified,
    Verify, VerifyMac, Wrap, Wrapped,
};

/// Writes the two methods of each route pair.
macro_rules! routes {
    ($($(#[$doc:meta])* $one:ident, $many:ident: $path:literal $request:ty => $answer:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            pub async fn $one(&self, key: &KeyName, body: &$request) -> Result<$answer> {
                self.json(self.api(Method::POST, &["keys", &key.to_string(), $path]).body(body)?).await
            }

            $(#[$doc])*
            /// Up to 1,000 of them, each with its own outcome.
            pub async fn $many(&self, key: &KeyName, body: &Batch<$request>) -> Result<BatchResults<$answer>> {
                self.json(self.api(Method::POST, &["keys", &key.to_string(), concat!($path, "-batch")]).body(body)?).await
            }
        )*}
    };
}

routes! {
    /// Wraps a plaintext.
    wrap, wrap_batch: "wrap" Wrap => Wrapped;
    /// Unwraps a ciphertext.
    unwrap, unwrap_batch: "unwrap" Unwrap => Unwrapped;
    /// Moves a ciphertext to the newest version, or to another key.
    rewrap, rewrap_batch: "rewrap" Rewrap => Wrapped;
    /// Makes a data key.
    datakey, datakey_batch: "datakey" GenerateDataKey => DataKey;
    /// Signs a message or a digest.
    sign, sign_batch: "sign" Sign => Signed;
    /// Verifies a signature: a wrong one is an answer, not an error.
    verify, verify_batch: "verify" Verify => Verified;
    /// Makes a message authentication code.
    mac, mac_batch: "mac" MakeMac => MacMade;
    /// Checks a message authentication code: a wrong one is an answer, not an error.
    verify_mac, verify_mac_batch: "mac-verify" VerifyMac => Verified;
}

impl Client {
    /// Signs a message or a digest. The second part is the receipt of its record in the audit log, where the
    /// server gives one.
    pub async fn sign_with_receipt(&self, key: &KeyName, body: &Sign) -> Result<(Signed, Option<String>)> {
        self.json_with_receipt(self.api(Method::POST, &["keys", &key.to_string(), "sign"]).body(body)?).await
    }
}
