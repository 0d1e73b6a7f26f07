"""Checks a cosignature by the words of C2SP tlog-cosignature, with the cryptography library.

    witness_judge.py CHECKPOINT LINES VKEY

CHECKPOINT is the checkpoint that was sent, LINES what the witness answered, VKEY its verifier key.
"""

import base64
import hashlib
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

checkpoint, lines = (pathlib.Path(path).read_text() for path in sys.argv[1:3])
name, key_id, material = sys.argv[3].split("+", 2)
material = base64.b64decode(material, validate=True)
assert material[0] == 0x04 and len(material) == 33, "not the key of a witness"

# "SHA-256(<name> || "\n" || 0x04 || 32-byte Ed25519 cosigner public key)[:4]"
expected = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
assert expected.hex() == key_id, "another key id"

# "the whole note body of the cosigned checkpoint (including the final newline, but not including any signature lines)"
body = checkpoint.rpartition("\n\n")[0] + "\n"
assert lines.endswith("\n")
found = []
for line in lines.removesuffix("\n").split("\n"):
    dash, signer, signature = line.split(" ")
    signature = base64.b64decode(signature, validate=True)
    assert dash == "\u2014"
    if (signer, signature[:4]) == (name, expected):
        time = int.from_bytes(signature[4:12], "big")
        assert len(signature) == 4 + 8 + 64 and time < 2**63
        message = f"cosignature/v1\ntime {time}\n{body}".encode()
        Ed25519PublicKey.from_public_bytes(material[1:]).verify(signature[12:], message)
        found.append(time)
assert found, "no cosignature of this witness"
print(name, max(found), body.split("\n")[1])
