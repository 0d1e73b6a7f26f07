"""Judges signatures of ML-DSA-65 by the OpenSSL in `cryptography`, whatever made them.

    ml_dsa_judge.py < {"pem": "...", "cases": [{"message": base64, "signature": base64}, ...]}

Prints JSON: for each case whether it verifies, and the thumbprint of the key (RFC 9964, 6).
"""

import base64
import hashlib
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def verifies(key, case):
    try:
        key.verify(base64.b64decode(case["signature"]), base64.b64decode(case["message"]))
        return True
    except InvalidSignature:
        return False


question = json.load(sys.stdin)
key = load_pem_public_key(question["pem"].encode())
assert isinstance(key, MLDSA65PublicKey), key
members = {"alg": "ML-DSA-65", "kty": "AKP", "pub": url(key.public_bytes_raw())}
canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
thumbprint = url(hashlib.sha256(canonical.encode()).digest())
print(json.dumps({"valid": [verifies(key, case) for case in question["cases"]], "thumbprint": thumbprint}))
