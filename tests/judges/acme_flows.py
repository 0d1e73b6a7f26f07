"""The flows of the Python package `acme`, which certbot is made from, against a directory.

acme_flows.py DIRECTORY PORT EAB_ID EAB_KEY NAME

Proofs are served on 127.0.0.1:PORT. Trust comes from REQUESTS_CA_BUNDLE. Prints what it did; any exception is a failure.
"""

import datetime
import http.server
import sys
import threading

import josepy as jose
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

directory_url, port, eab_id, eab_key, name = sys.argv[1:]
pages = {}


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pages.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Pages)
threading.Thread(target=server.serve_forever, daemon=True).start()


def connect(key, alg):
    net = client.ClientNetwork(key, alg=alg, user_agent="signet tests")
    return client.ClientV2(client.ClientV2.get_directory(directory_url, net), net=net)


def csr_for(key, names):
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return crypto_util.make_csr(pem, names)


def prove(acme, order):
    for authorization in order.authorizations:
        challenge = next(c for c in authorization.body.challenges if isinstance(c.chall, challenges.HTTP01))
        response, validation = challenge.response_and_validation(acme.net.key)
        pages[challenge.chall.path] = validation.encode()
        acme.answer_challenge(challenge, response)


def deadline():
    return datetime.datetime.now() + datetime.timedelta(seconds=60)


# An account, bound to an identity; the same key finds it again.
account_key = jose.JWKRSA(key=rsa.generate_private_key(65537, 2048))
acme = connect(account_key, jose.RS256)
assert acme.external_account_required()
binding = messages.ExternalAccountBinding.from_data(
    account_public_key=account_key.public_key(), kid=eab_id, hmac_key=eab_key, directory=acme.directory)
new = messages.NewRegistration.from_data(
    email="admin@" + name, terms_of_service_agreed=True, external_account_binding=binding)
account = acme.new_account(new)
print("account", account.body.status)
try:
    connect(account_key, jose.RS256).new_account(new)
    raise SystemExit("a second account with one key")
except errors.ConflictError as conflict:
    assert conflict.location == account.uri
account = acme.query_registration(account)
account = acme.update_registration(account.update(body=account.body.update(contact=("mailto:other@" + name,))))
assert account.body.contact == ("mailto:other@" + name,)

# A certificate, by a key of P-256.
key = ec.generate_private_key(ec.SECP256R1())
order = acme.new_order(csr_for(key, [name, "www." + name]))
prove(acme, order)
order = acme.poll_and_finalize(order, deadline())
certificate = x509.load_pem_x509_certificates(order.fullchain_pem.encode())[0]
names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
assert sorted(names) == sorted([name, "www." + name]), names
assert certificate.public_key() == key.public_key()
print("certificate", sorted(names))

# When to renew it.
when, _ = acme.renewal_time(order.fullchain_pem.encode())
now = datetime.datetime.now(datetime.timezone.utc)
assert when is not None and certificate.not_valid_before_utc < when < certificate.not_valid_after_utc, when
print("renewal within its life")

# Revoked by the account, and not twice.
acme.revoke(certificate, 1)
try:
    acme.revoke(certificate, 1)
    raise SystemExit("revoked twice")
except errors.Error as error:
    assert getattr(error, "code", "") == "alreadyRevoked", error
when, _ = acme.renewal_time(order.fullchain_pem.encode())
assert when <= now + datetime.timedelta(seconds=5), when
print("revoked")

# By the certified key, with an RSA certificate.
rsa_key = rsa.generate_private_key(65537, 2048)
order = acme.new_order(csr_for(rsa_key, [name]))
prove(acme, order)
order = acme.poll_and_finalize(order, deadline())
certificate = x509.load_pem_x509_certificates(order.fullchain_pem.encode())[0]
stranger = connect(jose.JWKRSA(key=rsa.generate_private_key(65537, 2048)), jose.RS256)
try:
    stranger.revoke(certificate, 1)
    raise SystemExit("revoked by a stranger")
except errors.Error as error:
    assert getattr(error, "code", "") == "unauthorized", error
owner = connect(jose.JWKRSA(key=rsa_key), jose.RS256)
owner.revoke(certificate, 1)
print("revoked by its key")

# A request for other names than those of the order.
order = acme.new_order(csr_for(key, [name]))
prove(acme, order)
acme.poll_authorizations(order, deadline())
try:
    acme.begin_finalization(order.update(csr_pem=csr_for(key, ["other." + name])))
    raise SystemExit("a certificate for another name")
except errors.Error as error:
    assert getattr(error, "code", "") == "badCSR", error
print("badCSR")

# A name that no policy permits.
try:
    acme.new_order(csr_for(key, ["www.example.org"]))
    raise SystemExit("an order for a name that is not ours")
except errors.Error as error:
    assert getattr(error, "code", "") == "rejectedIdentifier", error
print("rejectedIdentifier")

# The end of the account.
assert acme.deactivate_registration(account).body.status == "deactivated"
try:
    acme.new_order(csr_for(key, [name]))
    raise SystemExit("an order of a dead account")
except errors.Error as error:
    assert getattr(error, "code", "") == "unauthorized", error
print("deactivated")
