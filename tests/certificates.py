"""Certificates for servers of tests: an authority, and what it signs for one name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common.clock import SystemClock

__all__ = ["Certificates", "make_certificates"]

_AUTHORITY = "Test authority"
_VALID = timedelta(days=2)


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: the authority, another one that signed nothing, a server's key and its own."""

    authority: Path
    stranger: Path
    key: Path
    certificate: Path


def make_certificates(directory: Path, name: str) -> Certificates:
    """Make an authority and a server's certificate for `name`."""
    files = Certificates(*(directory / f"{each}.pem" for each in ("ca", "other", "key", "cert")))
    signing, serving, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    _write(files.authority, _certificate(_AUTHORITY, signing, signing, is_authority=True))
    _write(files.stranger, _certificate(_AUTHORITY, other, other, is_authority=True))
    _write(files.certificate, _certificate(name, serving, signing, is_authority=False))
    files.key.write_bytes(
        serving.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signed_by: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    signing = x509.SubjectKeyIdentifier.from_public_key(signed_by.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITY)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signing), critical=False
        )
        .add_extension(_usage(is_authority), critical=True)
    )
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signed_by, hashes.SHA256())


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority, key_cert_sign=is_authority, crl_sign=is_authority,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
