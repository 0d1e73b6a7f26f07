//! The table of all routes of ACME. The router and the tests that cross every route with every kind of stranger are made from it.

use http::Method;

use crate::service::acme::WhoSigns;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Tells all other addresses.
    Directory,
    /// Gives a nonce.
    NewNonce,
    /// Tells when to renew a certificate.
    RenewalInfo,
    /// Makes an account, or finds it.
    NewAccount,
    /// Reads, changes or ends an account.
    Account,
    /// Lists the orders of an account.
    Orders,
    /// Gives an account another key.
    KeyChange,
    /// Makes an order.
    NewOrder,
    /// Reads an order.
    Order,
    /// Reads an authorization, or gives it up.
    Authorization,
    /// Says that a proof is there, or reads a challenge.
    Challenge,
    /// Sends the request for the certificate.
    Finalize,
    /// Reads the certificate and its chain.
    Certificate,
    /// Reads it with another chain.
    Alternate,
    /// Revokes a certificate.
    Revoke,
}

impl Act {
    /// Who must have signed the request; nobody, for what everybody may ask.
    #[must_use]
    pub const fn signer(self) -> Option<WhoSigns> {
        match self {
            Self::Directory | Self::NewNonce | Self::RenewalInfo => None,
            Self::NewAccount => Some(WhoSigns::Key),
            Self::Revoke => Some(WhoSigns::Either),
            Self::Account | Self::Orders | Self::KeyChange | Self::NewOrder | Self::Order | Self::Authorization => {
                Some(WhoSigns::Account)
            }
            Self::Challenge | Self::Finalize | Self::Certificate | Self::Alternate => Some(WhoSigns::Account),
        }
    }
}

/// Method, path and what it does. `GET` stands for `HEAD`, too.
pub const ROUTES: &[(Method, &str, Act)] = &[
    (Method::GET, "/acme/{namespace}/{endpoint}/directory", Act::Directory),
    (Method::GET, "/acme/{namespace}/{endpoint}/new-nonce", Act::NewNonce),
    (Method::GET, "/acme/{namespace}/{endpoint}/renewal-info/{certificate}", Act::RenewalInfo),
    (Method::POST, "/acme/{namespace}/{endpoint}/new-account", Act::NewAccount),
    (Method::POST, "/acme/{namespace}/{endpoint}/account/{id}", Act::Account),
    (Method::POST, "/acme/{namespace}/{endpoint}/account/{id}/orders", Act::Orders),
    (Method::POST, "/acme/{namespace}/{endpoint}/key-change", Act::KeyChange),
    (Method::POST, "/acme/{namespace}/{endpoint}/new-order", Act::NewOrder),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}", Act::Order),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}/authorization/{number}", Act::Authorization),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}/authorization/{number}/{kind}", Act::Challenge),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}/finalize", Act::Finalize),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}/certificate", Act::Certificate),
    (Method::POST, "/acme/{namespace}/{endpoint}/order/{id}/certificate/{number}", Act::Alternate),
    (Method::POST, "/acme/{namespace}/{endpoint}/revoke-cert", Act::Revoke),
];

/// Method and path of the routes that everybody may ask.
pub fn open_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().filter(|(_, _, act)| act.signer().is_none()).map(|(method, path, _)| (method.as_str(), *path))
}

/// Method and path of the routes whose caller is who signed the body.
pub fn signed_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().filter(|(_, _, act)| act.signer().is_some()).map(|(method, path, _)| (method.as_str(), *path))
}
