"""Opens and makes ciphertexts of aes256-gcm by docs/formats.md, with the token's own AES-GCM by PyKCS11 and nothing of ours.

    gcm_judge.py open MODULE LABEL PIN-FILE [NAME=VALUE ...] < CIPHERTEXT > PLAINTEXT
    gcm_judge.py seal MODULE LABEL PIN-FILE PLAINTEXT [NAME=VALUE ...] < CIPHERTEXT OF THE SAME KEY > CIPHERTEXT
"""

import hashlib
import os
import pathlib
import sys

from PyKCS11 import AES_GCM_Mechanism, CKA_CLASS, CKA_ID, CKA_TOKEN, CKO_SECRET_KEY, PyKCS11Lib

verb, module, label, pin, *entries = sys.argv[1:]
plaintext = entries.pop(0).encode() if verb == "seal" else None
blob = sys.stdin.buffer.read()


def text(value):
    return len(value.encode()).to_bytes(4, "big") + value.encode()


context = dict(entry.split("=", 1) for entry in entries)
encoded = b"".join(text(name) + text(context[name]) for name in sorted(context, key=str.encode))
context_hash = hashlib.sha256(len(context).to_bytes(4, "big") + encoded).digest()

library = PyKCS11Lib()
library.load(module)
slot = next(slot for slot in library.getSlotList(tokenPresent=True) if library.getTokenInfo(slot).label.strip() == label)
session = library.openSession(slot)
session.login(pathlib.Path(pin).read_text().strip())
# CKA_ID is key id and version, as they stand in the label of a ciphertext.
[key] = session.findObjects([(CKA_TOKEN, True), (CKA_CLASS, CKO_SECRET_KEY), (CKA_ID, tuple(blob[4:24]))])


def cipher(header):
    return AES_GCM_Mechanism(header[24:36], header + context_hash, 128)


def checksum(header, plaintext):
    return hashlib.sha256(b"signet gcm v1" + header + context_hash + plaintext).digest()


assert blob[:4] == b"SE\x01\x06"
if verb == "open":
    header = blob[:36]
    opened = bytes(session.decrypt(key, blob[36:], cipher(header)))
    assert opened[:32] == checksum(header, opened[32:])
    sys.stdout.buffer.write(opened[32:])
else:
    header = blob[:24] + os.urandom(12)
    sys.stdout.buffer.write(header + bytes(session.encrypt(key, checksum(header, plaintext) + plaintext, cipher(header))))
session.logout()
session.closeSession()
