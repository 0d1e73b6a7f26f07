"""Checks a signed head of a log by the words of C2SP signed-note, with the cryptography library and one of its keys.

    checkpoint_judge.py CHECKPOINT KEY.pem
"""

import base64
import hashlib
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

note, pem = (pathlib.Path(path).read_bytes() for path in sys.argv[1:3])
key = load_pem_public_key(pem)

# "the text is separated from the signatures by the last empty line in the note", and "includes the final newline".
text, _, signatures = note.rpartition(b"\n\n")
text += b"\n"
origin, size, root = text.decode().splitlines()
assert str(int(size)) == size and len(base64.b64decode(root, validate=True)) == 32

if isinstance(key, Ed25519PublicKey):
    # "key ID = SHA-256(<name> || 0x0A || <signature type> || <public key>)[:4]", of type 0x01
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    key_id = hashlib.sha256(origin.encode() + b"\n\x01" + raw).digest()[:4]
else:
    # "the key ID for these signatures is the truncated SHA-256 hash of the DER encoded public key in SPKI format"
    key_id = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()[:4]

# "clients MUST ignore unknown signatures", among them the one by the other key.
found = []
for line in signatures.decode().removesuffix("\n").split("\n"):
    dash, name, signature = line.split(" ")
    assert dash == "\u2014", "no signature line"
    signature = base64.b64decode(signature, validate=True)
    if (name, signature[:4]) == (origin, key_id):
        found.append(signature[4:])
assert len(found) == 1, "not signed once by the key"
if isinstance(key, Ed25519PublicKey):
    key.verify(found[0], text)
else:
    key.verify(found[0], text, ECDSA(SHA256()))
print(f"{origin} {size}")
