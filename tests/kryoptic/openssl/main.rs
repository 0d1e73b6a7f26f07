//! Builds the OpenSSL of the crate `openssl-src`, newer than that of the system, into a folder: `openssl FOLDER HOST`, where the host
//! is as `rustc -vV` names it.

use std::env::args;

fn main() {
    let (Some(folder), Some(host)) = (args().nth(1), args().nth(2)) else {
        panic!("usage: openssl FOLDER HOST");
    };
    openssl_src::Build::new().out_dir(folder).host(&host).target(&host).build();
}
