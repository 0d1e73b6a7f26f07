#!/usr/bin/env python3
"""Makes the golden files and vectors of our formats with an independent implementation (pyca/cryptography).

    python3 tests/vectors/make.py

Random parts are fixed here, or taken from what stands there already, so a second run changes nothing. The formats are drawn in docs/formats.md.
"""
import hmac
import json
import pathlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDH, SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

TESTS = pathlib.Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
VECTORS = TESTS / "vectors"
ZERO_NONCE = bytes(12)


def expand(key, *info, length=32):
    return HKDFExpand(hashes.SHA256(), length, b"".join(info)).derive(key)


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


def row():
    """The tags of a row that is about to be signed, and of its end."""
    def number(value):
        return value.to_bytes(8, "big")

    def text(value):
        value = value if isinstance(value, bytes) else value.encode()
        return len(value).to_bytes(4, "big") + value

    names = ["dns:web.example.com", "ip:10.0.0.1"]
    serial = b"\x07" * 12 + number(1)
    reservation = number(1) + text(serial) + text("fleet:root") + number(1)
    reservation += text("default:server") + text("identity/r1") + text("CN=web")
    reservation += len(names).to_bytes(4, "big") + b"".join(text(name) for name in names)
    reservation += number(1) + number(10) + number(2) + text(b"\x01\x02\x03")
    end = number(1) + number(3) + (1).to_bytes(4, "big") + text(b"\x09\x09")
    key = expand(bytes(range(32)), b"signet certificate row v1", b"")
    tags = [hmac.digest(key, fields, "sha256") for fields in (b"R" + reservation, b"E" + end)]
    (GOLDEN / "certificate-row-v1.txt").write_text("".join(tag.hex() + "\n" for tag in tags))


def encode_context(entries):
    def text(value):
        value = value.encode()
        return len(value).to_bytes(4, "big") + value

    ordered = sorted(entries.items(), key=lambda entry: entry[0].encode())
    return len(ordered).to_bytes(4, "big") + b"".join(text(key) + text(value) for key, value in ordered)


CONTEXTS = [
    {},
    {"tenant": "a"},
    {"tenant": ""},
    {"b": "2", "a": "1"},
    {"ab": "c", "a": "bc"},
    {"purpose": "backup", "region": "eu-1", "file": "2026/11/21.tar"},
    {"\u00fc": "\u6f22\u5b57", "z": "\U0001f511", "\ufffd": "below the next", "\U00010000": "astral"},
    {"line": "one\ntwo\u0000three", "quote": '"'},
    {f"key-{n}": str(n) for n in range(32)},
    {"long": "x" * 8176},
]

REFUSED_CONTEXTS = [
    {"": "an empty key"},
    {f"key-{n}": str(n) for n in range(33)},
    {"long": "x" * 8177},
]


def context():
    """The canonical encoding of contexts."""
    cases = []
    for entries in CONTEXTS:
        encoding = encode_context(entries)
        cases.append({"context": entries, "encoding": encoding.hex(), "sha256": sha256(encoding).hex()})
    write_json("context.json", {"encoded": cases, "refused": REFUSED_CONTEXTS})


def derive(device_key, header, context_hash):
    ikm = hmac.digest(device_key, b"signet wrap v1" + header + context_hash, "sha256")
    return ikm, expand(ikm, b"enc"), expand(ikm, b"commit")


def blob(device_key, header, context_hash, plaintext):
    _, ek, ck = derive(device_key, header, context_hash)
    return header + ck + AESGCM(ek).encrypt(ZERO_NONCE, plaintext, header + ck + context_hash)


def envelope():
    """Ciphertexts of aes256-gcm-derived, and one that AES-GCM alone would open under two keys."""
    cases = []
    plaintexts = [b"", b"x", b"data key of 32 bytes, or so long", bytes(range(256)) * 5]
    for number, (plaintext, entries) in enumerate(zip(plaintexts, CONTEXTS[2:])):
        device_key = sha256(b"device key %d" % number)
        key_id, salt = sha256(b"key id %d" % number)[:16], sha256(b"salt %d" % number)
        version = [1, 2, 70000, 0xFFFFFFFF][number]
        header = b"SE\x01\x01" + key_id + version.to_bytes(4, "big") + salt
        context_hash = sha256(encode_context(entries))
        ikm, ek, ck = derive(device_key, header, context_hash)
        sealed = blob(device_key, header, context_hash, plaintext)
        cases.append({
            "device_key": device_key.hex(), "key_id": key_id.hex(), "version": version, "salt": salt.hex(),
            "context": entries, "device_input": (b"signet wrap v1" + header + context_hash).hex(), "ikm": ikm.hex(),
            "encryption_key": ek.hex(), "commitment": ck.hex(), "plaintext": plaintext.hex(), "blob": sealed.hex(),
        })
    (GOLDEN / "ciphertext-v1.bin").write_bytes(bytes.fromhex(cases[2]["blob"]))
    write_json("envelope.json", {"cases": cases, "salamander": salamander(header, context_hash)})


HPKE_PRIVATE_KEYS = [derive_private_key(int.from_bytes(sha256(b"hpke private key %d" % n), "big") >> 1, SECP256R1()) for n in range(4)]


def labeled_extract(suite, salt, label, ikm):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + ikm, "sha256")


def labeled_expand(suite, key, label, info, length):
    return expand(key, length.to_bytes(2, "big"), b"HPKE-v1", suite, label, info, length=length)


def hpke_encrypt(suite, shared, info, plaintext):
    """RFC 9180, 5.1 and 5.2 in base mode, for the first message."""
    context = b"\0" + labeled_extract(suite, b"", b"psk_id_hash", b"") + labeled_extract(suite, b"", b"info_hash", info)
    secret = labeled_extract(suite, shared, b"secret", b"")
    key, nonce = (labeled_expand(suite, secret, label, context, n) for label, n in ((b"key", 32), (b"base_nonce", 12)))
    return AESGCM(key).encrypt(nonce, plaintext, b"")


def hpke_seal(public, one_time, info, plaintext):
    """RFC 9180, SealBase, with a one-time key that is given, so that a second run changes nothing."""
    def point(key):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    kem = b"KEM\0\x10"
    enc, dh = point(one_time.public_key()), one_time.exchange(ECDH(), public)
    prk = labeled_extract(kem, b"", b"eae_prk", dh)
    shared = labeled_expand(kem, prk, b"shared_secret", enc + point(public), 32)
    return enc + hpke_encrypt(b"HPKE\0\x10\0\x01\0\x02", shared, info, plaintext)


def hpke():
    """Ciphertexts of hpke-p256. The HPKE of the cryptography library opens each."""
    cases = []
    plaintexts = [b"", b"x", b"data key of 32 bytes, or so long", bytes(range(256)) * 5]
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    for number, (private, plaintext, entries) in enumerate(zip(HPKE_PRIVATE_KEYS, plaintexts, CONTEXTS[2:])):
        key_id, version = sha256(b"hpke key id %d" % number)[:16], [1, 2, 70000, 0xFFFFFFFF][number]
        label = b"SE\x01\x02" + key_id + version.to_bytes(4, "big")
        info, context_hash = b"signet hpke v1" + label, sha256(encode_context(entries))
        one_time = derive_private_key(int.from_bytes(sha256(b"hpke one-time key %d" % number), "big") >> 1, SECP256R1())
        sealed = hpke_seal(private.public_key(), one_time, info, context_hash + plaintext)
        assert suite.decrypt(sealed, private, info) == context_hash + plaintext
        cases.append({
            "private_key": private.private_numbers().private_value.to_bytes(32, "big").hex(),
            "public_key": private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex(),
            "key_id": key_id.hex(), "version": version, "context": entries, "info": info.hex(),
            "plaintext": plaintext.hex(), "blob": (label + sealed).hex(),
        })
    (GOLDEN / "ciphertext-hpke-v1.bin").write_bytes(bytes.fromhex(cases[2]["blob"]))
    write_json("hpke.json", {"cases": cases})


def ml_kem():
    """Ciphertexts of ml-kem-768. The HPKE of the cryptography library opens each. Its ML-KEM draws the randomness of an encapsulation by itself, so
    `enc` is made once and taken from the file from then on."""
    cases, file = [], VECTORS / "ml-kem.json"
    older = json.loads(file.read_text(encoding="utf-8"))["cases"] if file.exists() else []
    plaintexts = [b"", b"x", b"data key of 32 bytes, or so long", bytes(range(256)) * 5]
    suite = Suite(KEM.MLKEM768, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    for number, (plaintext, entries) in enumerate(zip(plaintexts, CONTEXTS[2:])):
        seed = sha256(b"ml-kem private key %d" % number) + sha256(b"ml-kem rejection %d" % number)
        private = MLKEM768PrivateKey.from_seed_bytes(seed)
        key_id, version = sha256(b"ml-kem key id %d" % number)[:16], [1, 2, 70000, 0xFFFFFFFF][number]
        label = b"SE\x01\x07" + key_id + version.to_bytes(4, "big")
        info, context_hash = b"signet hpke v1" + label, sha256(encode_context(entries))
        enc = bytes.fromhex(older[number]["blob"])[24:24 + 1088] if older else private.public_key().encapsulate()[1]
        secret = private.decapsulate(enc)
        sealed = enc + hpke_encrypt(b"HPKE\0\x41\0\x01\0\x02", secret, info, context_hash + plaintext)
        assert suite.decrypt(sealed, private, info) == context_hash + plaintext
        cases.append({
            "private_seed": seed.hex(), "public_key": private.public_key().public_bytes_raw().hex(), "secret": secret.hex(),
            "key_id": key_id.hex(), "version": version, "context": entries, "info": info.hex(),
            "plaintext": plaintext.hex(), "blob": (label + sealed).hex(),
        })
    (GOLDEN / "ciphertext-ml-kem-v1.bin").write_bytes(bytes.fromhex(cases[2]["blob"]))
    write_json("ml-kem.json", {"cases": cases})


def oaep_encrypt(public, message, seed):
    """RFC 8017, 7.1.1 with SHA-256 and an empty label, and a seed that is given, so that a second run changes nothing."""
    def mgf1(data, length):
        return b"".join(sha256(data + counter.to_bytes(4, "big")) for counter in range(-(-length // 32)))[:length]

    def xor(left, right):
        return bytes(one ^ other for one, other in zip(left, right))

    size = public.key_size // 8
    block = sha256(b"") + bytes(size - len(message) - 66) + b"\1" + message
    block = xor(block, mgf1(seed, len(block)))
    padded = b"\0" + xor(seed, mgf1(block, 32)) + block
    numbers = public.public_numbers()
    return pow(int.from_bytes(padded, "big"), numbers.e, numbers.n).to_bytes(size, "big")


def oaep():
    """Ciphertexts of rsa2048-oaep-sha256. The OAEP of the cryptography library opens each."""
    private = load_pem_private_key((VECTORS / "oaep-key.pem").read_bytes(), None)
    public, cases = private.public_key(), []
    plaintexts = [b"", b"x", b"data key of 32 bytes, or so long", bytes(range(256)) * 5]
    for number, (plaintext, entries) in enumerate(zip(plaintexts, CONTEXTS[2:])):
        key_id, version = sha256(b"oaep key id %d" % number)[:16], [1, 2, 70000, 0xFFFFFFFF][number]
        secret, context_hash = sha256(b"oaep secret %d" % number), sha256(encode_context(entries))
        sent = oaep_encrypt(public, secret, sha256(b"oaep seed %d" % number))
        padding = OAEP(MGF1(hashes.SHA256()), hashes.SHA256(), None)
        assert private.decrypt(sent, padding) == secret
        header = b"SE\x01\x03" + key_id + version.to_bytes(4, "big") + sent
        sealed = blob(secret, header, context_hash, plaintext)
        cases.append({"key_id": key_id.hex(), "version": version, "context": entries, "plaintext": plaintext.hex(), "blob": sealed.hex()})
    (GOLDEN / "ciphertext-oaep-v1.bin").write_bytes(bytes.fromhex(cases[2]["blob"]))
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    write_json("oaep.json", {"private_key": der.hex(), "public_key": spki.hex(), "cases": cases})


def gcm():
    """Ciphertexts of aes256-gcm: what the device does is AES-256-GCM."""
    cases = []
    plaintexts = [b"", b"x", b"data key of 32 bytes, or so long", bytes(range(256)) * 5]
    for number, (plaintext, entries) in enumerate(zip(plaintexts, CONTEXTS[2:])):
        device_key, nonce = sha256(b"gcm device key %d" % number), sha256(b"gcm nonce %d" % number)[:12]
        key_id, version = sha256(b"gcm key id %d" % number)[:16], [1, 2, 70000, 0xFFFFFFFF][number]
        header, context_hash = b"SE\x01\x06" + key_id + version.to_bytes(4, "big") + nonce, sha256(encode_context(entries))
        total = sha256(b"signet gcm v1" + header + context_hash + plaintext)
        sealed = header + AESGCM(device_key).encrypt(nonce, total + plaintext, header + context_hash)
        cases.append({
            "device_key": device_key.hex(), "key_id": key_id.hex(), "version": version, "nonce": nonce.hex(), "context": entries,
            "sum": total.hex(), "plaintext": plaintext.hex(), "blob": sealed.hex(),
        })
    (GOLDEN / "ciphertext-gcm-v1.bin").write_bytes(bytes.fromhex(cases[2]["blob"]))
    write_json("gcm.json", {"cases": cases})


def salamander(header, context_hash):
    """A blob committed to its first key whose AES-GCM part has a right tag under the second as well
    (https://eprint.iacr.org/2019/016, section 3.2): one block of ciphertext is solved for."""
    first, second = (sha256(b"salamander %d" % n) for n in (1, 2))
    ck, keys = expand(first, b"commit"), [expand(ikm, b"enc") for ikm in (first, second)]
    aad = header + ck + context_hash
    blocks = blocks_of(aad) + [0] + [(len(aad) * 8 << 64) | 128]
    free = len(blocks) - 2
    h = [encrypt_block(key, 0) for key in keys]
    mask = [encrypt_block(key, 1) for key in keys]
    fixed = ghash(h[0], blocks) ^ ghash(h[1], blocks) ^ mask[0] ^ mask[1]
    factor = power(h[0], len(blocks) - free) ^ power(h[1], len(blocks) - free)
    blocks[free] = multiply(fixed, power(factor, 2**128 - 2))
    tag = ghash(h[0], blocks) ^ mask[0]
    body = blocks[free].to_bytes(16, "big") + tag.to_bytes(16, "big")
    for key in keys:
        AESGCM(key).decrypt(ZERO_NONCE, body, aad)
    return {"first_ikm": first.hex(), "second_ikm": second.hex(), "encryption_keys": [key.hex() for key in keys],
            "context_hash": context_hash.hex(), "blob": (header + ck + body).hex()}


def blocks_of(data):
    return [int.from_bytes(data[at:at + 16].ljust(16, b"\0"), "big") for at in range(0, len(data), 16)]


def encrypt_block(key, counter):
    return int.from_bytes(Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(counter.to_bytes(16, "big")), "big")


def multiply(x, y):
    """In GF(2^128) as GCM numbers its bits (SP 800-38D, 6.3)."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def power(x, exponent):
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = multiply(result, x)
        x, exponent = multiply(x, x), exponent >> 1
    return result


def ghash(h, blocks):
    state = 0
    for block in blocks:
        state = multiply(state ^ block, h)
    return state


def file():
    """An encrypted file of two chunks."""
    data_key, wrapped, chunk = bytes(range(32)), b"a wrapped data key", 65536
    plaintext = bytes(n * 7 % 251 for n in range(chunk + 7))
    header = b"SGNF\x01" + len(wrapped).to_bytes(2, "big") + wrapped + bytes(range(200, 232))
    derived = expand(data_key, b"signet file v1", sha256(header), length=39)
    key, prefix = AESGCM(derived[:32]), derived[32:]
    first = key.encrypt(prefix + (0).to_bytes(4, "big") + b"\0", plaintext[:chunk], b"")
    last = key.encrypt(prefix + (1).to_bytes(4, "big") + b"\1", plaintext[chunk:], b"")
    (GOLDEN / "file-v1.bin").write_bytes(header + first + last)


def write_json(name, value):
    text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False)
    (VECTORS / name).write_text(text + "\n", encoding="utf-8")


record()
row()
context()
envelope()
hpke()
ml_kem()
oaep()
gcm()
file()
