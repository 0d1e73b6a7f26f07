//! A backup that is taken under load and restored elsewhere.

use signet::client::Client;

/// The whole archive.
pub(crate) async fn download(client: &Client) -> Vec<u8> {
    let mut download = client.backup().await.unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = download.piece().await.unwrap() {
        archive.extend_from_slice(&piece);
    }
    archive
}
