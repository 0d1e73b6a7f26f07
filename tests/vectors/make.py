#!/usr/bin/env python3
"""Makes the golden files and vectors of our formats with an independent implementation (pyca/cryptography).

    python3 tests/vectors/make.py

Random parts are fixed here, so a second run changes nothing. The formats are drawn in docs/formats.md.
"""
import json
import pathlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

TESTS = pathlib.Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
VECTORS = TESTS / "vectors"
ZERO_NONCE = bytes(12)


def expand(key, *info):
    return HKDFExpand(hashes.SHA256(), 32, b"".join(info)).derive(key)


def sha256(data):
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()


def record():
    """A sealed record of the store."""
    magic, revision, path = b"SR\x01", (1).to_bytes(8, "big"), b"keys/default/release"
    salt = bytes(range(100, 132))
    subkey = expand(bytes(range(32)), b"signet record v1", salt)
    sealed = AESGCM(subkey).encrypt(ZERO_NONCE, b"a record of format 1", magic + revision + path)
    (GOLDEN / "record-v1.bin").write_bytes(magic + salt + sealed)


record()
