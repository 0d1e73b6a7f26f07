"""Wraps by docs/formats.md with a public key: OAEP by openssl, the rest by the cryptography library.

    oaep_judge.py KEY.json PLAINTEXT [NAME=VALUE ...] > CIPHERTEXT

KEY.json is what `signet key public-key KEY --json` writes.
"""

import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

file, plaintext, *entries = sys.argv[1:]
key = json.loads(pathlib.Path(file).read_text())
number = {"rsa2048-oaep-sha256": 3, "rsa3072-oaep-sha256": 4, "rsa4096-oaep-sha256": 5}[key["algorithm"]]


def text(value):
    return len(value.encode()).to_bytes(4, "big") + value.encode()


context = dict(entry.split("=", 1) for entry in entries)
encoded = b"".join(text(name) + text(context[name]) for name in sorted(context, key=str.encode))
context_hash = hashlib.sha256(len(context).to_bytes(4, "big") + encoded).digest()

seed = os.urandom(32)
with tempfile.NamedTemporaryFile("w") as pem:
    pem.write(key["pem"])
    pem.flush()
    options = [f"-pkeyopt={one}" for one in ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")]
    options = [part for option in options for part in option.split("=", 1)]
    command = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", pem.name, *options]
    sent = subprocess.run(command, input=seed, stdout=subprocess.PIPE, check=True).stdout
header = b"SE\x01" + bytes([number]) + bytes.fromhex(key["id"]) + key["version"].to_bytes(4, "big") + sent
ikm = hmac.digest(seed, b"signet wrap v1" + header + context_hash, "sha256")
ek, ck = (HKDFExpand(hashes.SHA256(), 32, info).derive(ikm) for info in (b"enc", b"commit"))
sealed = AESGCM(ek).encrypt(bytes(12), plaintext.encode(), header + ck + context_hash)
sys.stdout.buffer.write(header + ck + sealed)
