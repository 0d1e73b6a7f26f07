"""Checks an attestation by docs/attestation.md and the TPM 2.0 Library, with the cryptography library.

    attestation_judge.py FILE KEY.pem
"""

import base64
import hashlib
import json
import pathlib
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key, load_pem_public_key

file, pem = (pathlib.Path(path).read_bytes() for path in sys.argv[1:3])
read = json.loads(file)
key = load_pem_public_key(pem)
assert read["format"] == "signet-attestation@v1"
assert base64.b64decode(read["attestation_key"]) == key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def verify(message, signature):
    raw = base64.b64decode(signature)
    assert len(raw) == 64
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    key.verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))


binding = hashlib.sha256(b"signet-attestation@v1\n" + compact(read["claim"])).digest()
evidence = read["evidence"]
if evidence["kind"] == "pkcs11":
    statement = evidence["statement"]
    verify(b"signet-token-statement@v1\n" + compact(statement), evidence["signature"])
    assert statement["binding"] == binding.hex()
    assert statement.get("public_key") == read["claim"].get("public_key")
    assert statement["object"]["CKA_SENSITIVE"] == "true" and statement["object"]["CKA_EXTRACTABLE"] == "false"
    if read["claim"]["residency"] == "wrapped":
        assert statement["kek"]["attributes"]["CKA_NEVER_EXTRACTABLE"] == "true"
        assert statement["kek"]["unwraps"]["CKA_EXTRACTABLE"] == "false"
else:
    attest, area = base64.b64decode(evidence["attest"]), base64.b64decode(evidence["object"])
    verify(attest, evidence["signature"])
    magic, kind = struct.unpack_from(">IH", attest)
    assert (magic, kind) == (0xFF544347, 0x8017)
    at, fields = 6, []

    def sized():
        global at
        (length,) = struct.unpack_from(">H", attest, at)
        at += 2 + length
        return attest[at - length : at]

    signer, extra = sized(), sized()
    at += 17 + 8
    name, qualified = sized(), sized()
    assert at == len(attest)
    assert extra == binding
    assert name == b"\x00\x0b" + hashlib.sha256(area).digest()
    (attributes,) = struct.unpack_from(">I", area, 4)
    # fixedTPM, fixedParent, sensitiveDataOrigin.
    assert attributes & 0x32 == 0x32
    (length,) = struct.unpack_from(">H", area, 8)
    policy, pcrs = area[10 : 10 + length], read["claim"].get("pcrs")
    # userWithAuth: whatever is bound to PCRs is used by its policy alone.
    assert bool(attributes & 0x40) == (pcrs is None)
    if pcrs is None:
        assert policy == b""
    else:
        registers = {int(register): bytes.fromhex(value) for register, value in pcrs["values"].items()}
        mask = sum(1 << register for register in registers).to_bytes(3, "little")
        values = b"".join(registers[register] for register in sorted(registers))
        selection = struct.pack(">IHB", 1, {"sha256": 0x0B, "sha384": 0x0C, "sha512": 0x0D}[pcrs["bank"]], 3) + mask
        # TPM2_PolicyPCR, then TPM2_PolicyAuthValue.
        bound = hashlib.sha256(bytes(32) + struct.pack(">I", 0x17F) + selection + hashlib.sha256(values).digest()).digest()
        assert policy == hashlib.sha256(bound + struct.pack(">I", 0x16B)).digest()
    if "public_key" in read["claim"]:
        public = load_der_public_key(base64.b64decode(read["claim"]["public_key"]))
        numbers, size = public.public_numbers(), (public.key_size + 7) // 8
        parts = [numbers.n] if hasattr(numbers, "n") else [numbers.x, numbers.y]
        assert area.endswith(b"".join(struct.pack(">H", size) + part.to_bytes(size, "big") for part in parts))
print("holds")
