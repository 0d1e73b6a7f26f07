"""Reads an X.509-SVID and the bundle of its trust domain by the SPIFFE library, and holds one against the other.

    spiffe_judge.py FOLDER BUNDLE.json
"""

import base64
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from jwt.api_jwk import PyJWKSet
from spiffe import SpiffeId, X509Bundle, X509Svid

folder, document = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
svid = X509Svid.load(folder / "tls.crt", folder / "tls.key", Encoding.PEM)
domain = svid.spiffe_id.trust_domain
assert svid.private_key.public_key() == svid.leaf.public_key(), "the key is another one"

# X509-SVID, 6.2: `use` is x509-svid, and `x5c` holds one certificate, whose key is the JWK.
bundle = X509Bundle.parse(domain, (folder / "ca.crt").read_bytes())
entries = json.loads(document)["keys"]
read = PyJWKSet.from_json(document).keys
assert len(read) == len(entries) == len(bundle.x509_authorities), "a key cannot be read"
for entry, key in zip(entries, read):
    assert entry["use"] == "x509-svid" and len(entry["x5c"]) == 1, entry
    authority = load_der_x509_certificate(base64.b64decode(entry["x5c"][0]))
    assert authority in bundle.x509_authorities, "the two bundles differ"
    assert authority.public_key() == key.key, "the JWK is not the key of its certificate"

# Each certificate is signed by the next, and the last by an authority of the bundle.
chain = svid.cert_chain
for below, above in zip(chain, chain[1:]):
    below.verify_directly_issued_by(above)
assert any(above.subject == chain[-1].issuer and chain[-1].verify_directly_issued_by(above) is None for above in bundle.x509_authorities)
print(SpiffeId(str(svid.spiffe_id)))
