"""Checks a signed head of a log by the words of C2SP signed-note, with the cryptography library.

    checkpoint_judge.py CHECKPOINT KEY.pem
"""

import base64
import hashlib
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

note, pem = (pathlib.Path(path).read_bytes() for path in sys.argv[1:3])
key = load_pem_public_key(pem)

# "the text is separated from the signatures by the last empty line in the note", and "includes the final newline".
text, _, signatures = note.rpartition(b"\n\n")
text += b"\n"
origin, size, root = text.decode().splitlines()
assert str(int(size)) == size and len(base64.b64decode(root, validate=True)) == 32

# "the key ID for these signatures is the truncated SHA-256 hash of the DER encoded public key in SPKI format"
spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
dash, name, signature = signatures.decode().removesuffix("\n").split(" ")
signature = base64.b64decode(signature, validate=True)
assert (dash, name) == ("\u2014", origin), "another name"
assert signature[:4] == hashlib.sha256(spki).digest()[:4], "another key id"
key.verify(signature[4:], text, ECDSA(SHA256()))
print(f"{origin} {size}")
