"""Wraps by docs/formats.md, with a public key and an HPKE library that knows nothing of Signet.

    hpke_judge.py LIBRARY KEY.json PLAINTEXT [NAME=VALUE ...] > CIPHERTEXT

LIBRARY is `cryptography`, or for keys of P-256 `pyhpke`. KEY.json is what `signet key public-key KEY --json` writes.
"""

import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

library, file, plaintext, *entries = sys.argv[1:]
key = json.loads(pathlib.Path(file).read_text())
number, kem = {"hpke-p256": (2, "P256"), "ml-kem-768": (7, "MLKEM768")}[key["algorithm"]]
public = load_pem_public_key(key["pem"].encode())


def text(value):
    return len(value.encode()).to_bytes(4, "big") + value.encode()


context = dict(entry.split("=", 1) for entry in entries)
encoded = b"".join(text(name) + text(context[name]) for name in sorted(context, key=str.encode))
context_hash = hashlib.sha256(len(context).to_bytes(4, "big") + encoded).digest()
label = bytes([*b"SE", 1, number]) + bytes.fromhex(key["id"]) + key["version"].to_bytes(4, "big")
info, sealed = b"signet hpke v1" + label, context_hash + plaintext.encode()

if library == "cryptography":
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    blob = Suite(getattr(KEM, kem), KDF.HKDF_SHA256, AEAD.AES_256_GCM).encrypt(sealed, public, info)
else:
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId

    suite = CipherSuite.new(KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    enc, sender = suite.create_sender_context(suite.kem.deserialize_public_key(point), info=info)
    blob = enc + sender.seal(sealed)
sys.stdout.buffer.write(label + blob)
