#!/usr/bin/env python3
"""Writes the signatures by model-signing that crates/attest/tests/vectors/peer holds, with keys and certificates made for them.

    python3 -m venv target/model-signing
    target/model-signing/bin/pip install -r scripts/requirements/model-signing.txt
    target/model-signing/bin/python scripts/golden_signing.py

What model-signing publishes is all on P-384, by file, with certificates of today: here are P-256 and P-521, shards, and a chain of
certificates that ended in 2021. Private keys are made anew and thrown away.
"""

import datetime
import pathlib
import shutil
import tempfile

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
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


def main():
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
