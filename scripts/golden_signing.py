#!/usr/bin/env python3
"""Writes the signatures by model-signing that crates/attest/tests/vectors/peer holds, with keys and certificates made for them, and
chains of certificates with a fault each (chains.json).

    python3 -m venv target/model-signing
    target/model-signing/bin/pip install -r scripts/requirements/model-signing.txt
    target/model-signing/bin/python scripts/golden_signing.py

What model-signing publishes is all on P-384, by file, with certificates of today: here are P-256 and P-521, shards, and a chain of
certificates that ended in 2021. Private keys are made anew and thrown away.
"""

import base64
import datetime
import json
import pathlib
import shutil
import tempfile

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TO = pathlib.Path(__file__).resolve().parent.parent / "crates/attest/tests/vectors/peer"
BEGIN, END = datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1)


def folder(name):
    """A model of three files, one of them empty and one in a folder below."""
    path = TO / name
    shutil.rmtree(path, ignore_errors=True)
    (path / "sub").mkdir(parents=True)
    (path / "weights.bin").write_bytes(bytes(range(23)))
    (path / "sub/config.json").write_text("{}\n")
    (path / "empty").write_bytes(b"")
    return path


def key(curve, secret):
    """A private key in a file that is thrown away."""
    made = ec.generate_private_key(curve)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(pem)
    return made


def public(made, path):
    path.write_bytes(made.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def certificate(name, made, issuer, issuer_key, authority):
    named = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, False, False, False)
    builder = x509.CertificateBuilder(
        issuer_name=named(issuer), subject_name=named(name), public_key=made.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=BEGIN, not_valid_after=END,
    ).add_extension(x509.BasicConstraints(authority, None), critical=True).add_extension(usage, critical=True)
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def unsigned(name, *, key=None, issuer=None, ca=True, path=None, usage=True, more=(), begin=BEGIN, end=END, eku=None):
    """A certificate to be signed, by default of an authority, its key and the key to sign with. `issuer` is a certificate and its key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above, above_key = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = x509.CertificateBuilder(
        issuer_name=above, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=begin, not_valid_after=end)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path), critical=True)
    if usage is not None:
        signs = usage if isinstance(usage, tuple) else (not ca, bool(ca))
        builder = builder.add_extension(
            x509.KeyUsage(signs[0], False, True, False, False, signs[1], False, False, False), critical=True)
    if eku is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([eku]), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    return builder, key, above_key


def made(*args, hash=hashes.SHA256(), **options):
    """A certificate and its key."""
    builder, key, above_key = unsigned(*args, **options)
    return builder.sign(above_key, hash), key


def chains():
    """Chains from a signer to a root, each with what is to be found: nothing, or a part of the message."""
    code, other = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH
    leaf = lambda issuer, **options: made("leaf", issuer=issuer, **{"ca": False, "eku": code, **options})
    root = made("root", key=ec.generate_private_key(ec.SECP384R1()), hash=hashes.SHA384())
    between = lambda **options: made("between", **{"issuer": root, **options})
    of_rsa = made("rsa", key=rsa.generate_private_key(65537, 2048))
    weak = made("weak", key=rsa.generate_private_key(65537, 1024))
    narrow = made("narrow", path=0)
    impostor = made("root")
    unknown = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    names = (x509.NameConstraints([x509.DNSName("example.org")], None), True)
    ended = {"end": datetime.datetime(2020, 3, 1)}

    def case(name, expect, signer, between=(), root=root):
        encoded = lambda pair: base64.b64encode(pair[0].public_bytes(serialization.Encoding.DER)).decode()
        chain = [encoded(pair) for pair in (signer, *between)]
        return {"name": name, "expect": expect, "chain": chain, "root": encoded(root)}

    def through(name, expect, **options):
        pair = between(**options)
        return case(name, expect, leaf(pair), [pair])

    def under(pair, expect):
        return case(f"signed by {pair[0].subject.rfc4514_string()}", expect, leaf(pair), [], pair)

    long = [root]
    for i in range(8):
        long.append(made(f"between {i}", issuer=long[-1]))
    one, two = made("one"), made("two")
    one_by_two = made("one", key=one[1], issuer=two)
    two_by_one = made("two", key=two[1], issuer=one)
    crowd = [made("crowd", key=one[1]) for _ in range(8)]
    own = made("leaf", ca=False, eku=code)
    return [
        through("sound", ""),
        case("from the root", "", leaf(root)),
        case("trusted itself", "", own, [], own),
        under(of_rsa, ""),
        case("of seven", "", leaf(long[6]), long[1:7][::-1]),
        through("no authority", "is not that of an authority", ca=False, usage=(True, True)),
        through("nothing said of authority", "is not that of an authority", ca=None, usage=(True, True)),
        through("may not sign certificates", "may not sign certificates", usage=(True, False)),
        through("for servers", "is not for signing code", eku=other),
        through("with constraints on names", "2.5.29.30", more=[names]),
        through("with a critical extension", "1.2.3.4", more=[unknown]),
        through("ended", "CN=between is not valid", **ended),
        through("by another key of that name", "is not signed by the key of CN=root", issuer=impostor),
        case("longer than the root allows", "may not vouch for so long a chain",
             *(lambda pair: (leaf(pair), [pair], narrow))(made("between", issuer=narrow))),
        case("signer that is not for signatures", "is not for signatures", leaf(root, usage=(False, False))),
        case("signer for servers", "is not for signing code", leaf(root, eku=other)),
        case("signer that says nothing", "does not say that it is for signatures", leaf(root, usage=None, eku=None)),
        case("signer with an unknown key", "a key that is not supported", leaf(root, key=ed25519.Ed25519PrivateKey.generate())),
        under(weak, "fewer than 2048 bits"),
        case("of nine", "no chain of certificates", leaf(long[8]), long[1:9][::-1]),
        case("in a circle", "no chain of certificates", leaf(one_by_two), [one_by_two, two_by_one]),
        case("in a crowd", "too many to try", leaf(crowd[0]), crowd),
    ]


def main():
    (TO / "chains.json").write_text(json.dumps(chains(), indent=1) + "\n")
    secret = pathlib.Path(tempfile.mkdtemp()) / "key.pem"
    for name, curve in [("p256-key", ec.SECP256R1()), ("p521-key-shards", ec.SECP521R1())]:
        path = folder(name)
        public(key(curve, secret), TO / f"{name}.pub.pem")
        hashing = model_signing.hashing.Config().set_ignored_paths(paths=[path / "model.sig"])
        if "shards" in name:
            hashing.use_shard_serialization(shard_size=10)
        config = model_signing.signing.Config().use_elliptic_key_signer(private_key=secret)
        config.set_hashing_config(hashing).sign(path, path / "model.sig")

    path, pems = folder("ended-certificate"), {}
    root, between, leaf = (ec.generate_private_key(c) for c in (ec.SECP384R1(), ec.SECP256R1(), ec.SECP521R1()))
    secret.write_bytes(leaf.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    for name, made in [
        ("root", certificate("root", root, "root", root, True)),
        ("between", certificate("between", between, "root", root, True)),
        ("leaf", certificate("leaf", leaf, "between", between, False)),
    ]:
        pems[name] = secret.parent / f"{name}.pem"
        pems[name].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    shutil.copy(pems["root"], TO / "ended-certificate.root.pem")
    config = model_signing.signing.Config().use_certificate_signer(
        private_key=secret, signing_certificate=pems["leaf"], certificate_chain=[pems["between"]])
    config.set_hashing_config(model_signing.hashing.Config().set_ignored_paths(paths=[path / "model.sig"]))
    config.sign(path, path / "model.sig")
    shutil.rmtree(secret.parent)


if __name__ == "__main__":
    main()
