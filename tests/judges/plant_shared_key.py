"""Puts a key that it knows in the place of the shared key-encryption key of signing keys, as somebody could who has the PIN.

    plant_shared_key.py MODULE LABEL PIN-FILE KEY-ID
"""

import pathlib
import sys

from PyKCS11 import (
    CKA_ALLOWED_MECHANISMS,
    CKA_CLASS,
    CKA_COPYABLE,
    CKA_DECRYPT,
    CKA_DERIVE,
    CKA_ENCRYPT,
    CKA_EXTRACTABLE,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_MODIFIABLE,
    CKA_PRIVATE,
    CKA_SENSITIVE,
    CKA_SIGN,
    CKA_SIGN_RECOVER,
    CKA_TOKEN,
    CKA_UNWRAP,
    CKA_UNWRAP_TEMPLATE,
    CKA_VALUE,
    CKA_VERIFY,
    CKA_WRAP,
    CKA_WRAP_WITH_TRUSTED,
    CKO_PRIVATE_KEY,
    CKO_SECRET_KEY,
    PyKCS11Lib,
)

ALL = [
    CKA_CLASS,
    CKA_KEY_TYPE,
    CKA_TOKEN,
    CKA_PRIVATE,
    CKA_SENSITIVE,
    CKA_EXTRACTABLE,
    CKA_WRAP_WITH_TRUSTED,
    CKA_COPYABLE,
    CKA_SIGN,
    CKA_VERIFY,
    CKA_ENCRYPT,
    CKA_DECRYPT,
    CKA_WRAP,
    CKA_UNWRAP,
    CKA_DERIVE,
    CKA_ALLOWED_MECHANISMS,
    CKA_ID,
    CKA_LABEL,
    CKA_MODIFIABLE,
]
UNWRAPS = [
    (CKA_CLASS, CKO_PRIVATE_KEY),
    (CKA_TOKEN, False),
    (CKA_PRIVATE, True),
    (CKA_SENSITIVE, True),
    (CKA_EXTRACTABLE, False),
    (CKA_COPYABLE, False),
    (CKA_SIGN, True),
    (CKA_SIGN_RECOVER, False),
    (CKA_DECRYPT, False),
    (CKA_UNWRAP, False),
    (CKA_DERIVE, False),
    (CKA_MODIFIABLE, False),
]

module, label, pin, wanted = sys.argv[1:]
library = PyKCS11Lib()
library.load(module)
slot = next(slot for slot in library.getSlotList(tokenPresent=True) if library.getTokenInfo(slot).label.strip() == label)
session = library.openSession(slot, 6)
session.login(pathlib.Path(pin).read_text().strip())
name = tuple(bytes.fromhex(wanted) + (1).to_bytes(4, "big"))
[key] = session.findObjects([(CKA_TOKEN, True), (CKA_CLASS, CKO_SECRET_KEY), (CKA_ID, name)])
values = session.getAttributeValue(key, ALL)
session.destroyObject(key)
stated = [*zip(ALL, values), (CKA_UNWRAP_TEMPLATE, UNWRAPS), (CKA_VALUE, (7,) * 32)]
# What cannot be changed any more is stated last.
session.createObject(sorted(stated, key=lambda one: one[0] == CKA_MODIFIABLE))
session.logout()
session.closeSession()
