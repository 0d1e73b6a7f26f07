"""Asks `cryptography` whether a server's chain is good at a time: verify.py HOST TIME, certificates as lines of hexadecimal.

The first line is the root, the second the leaf, the others stand between. Answers 0 for good, 3 for bad, with the reason.
Its policy knows no Ed25519: there each signature is verified by itself, and hosts and constraints are not looked at.
"""

import datetime
import ipaddress
import sys

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509 import verification

host, at = sys.argv[1:]
chain = [x509.load_der_x509_certificate(bytes.fromhex(line)) for line in sys.stdin.read().split()]
root, leaf, between = chain[0], chain[1], chain[2:]

try:
    name = x509.IPAddress(ipaddress.ip_address(host))
except ValueError:
    name = x509.DNSName(host)


def signatures():
    issuer = root
    for certificate in between[::-1] + [leaf]:
        certificate.verify_directly_issued_by(issuer)
        issuer = certificate


def policy():
    builder = verification.PolicyBuilder().store(verification.Store([root]))
    builder = builder.time(datetime.datetime.fromisoformat(at))
    builder.build_server_verifier(name).verify(leaf, between)


try:
    if any(isinstance(certificate.public_key(), ed25519.Ed25519PublicKey) for certificate in chain):
        signatures()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if host not in map(str, names.get_values_for_type(type(name))):
            raise verification.VerificationError("another host")
    else:
        policy()
except Exception as refused:
    print(refused)
    sys.exit(3)
