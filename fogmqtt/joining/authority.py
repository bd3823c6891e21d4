"""A private authority: certificates of the broker and of boards, and the list of revoked ones.

Certificates begin years in the past, since many boards have no clock that runs without power.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fogmqtt.errors import JoinRefused

AUTHORITY_LIFE: Final = timedelta(days=3650)
#: What browsers and operating systems accept at most.
CERTIFICATE_LIFE: Final = timedelta(days=825)
#: How long before its making a certificate begins.
_HEAD_START: Final = timedelta(days=5 * 365)
_MOST_REQUEST: Final = 4096

_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """A certificate with what a ledger notes of it."""

    pem: str
    serial: int
    expires: datetime


def new_key() -> str:
    """Return a new private key, PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def make_request(key: str, name: str) -> str:
    """Return a request for a certificate of this name, PEM."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named(name))
    return _pem(builder.sign(_load_key(key), hashes.SHA256()))


class Authority:
    """Signs with one key."""

    def __init__(self, certificate: str, key: str) -> None:
        self.pem = certificate
        self._certificate = x509.load_pem_x509_certificate(certificate.encode())
        self._key = _load_key(key)

    @classmethod
    def make(cls, gateway: str, now: datetime) -> tuple[Authority, str]:
        """Make an authority, and return it with its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _named(f"fogmqtt {gateway}")
        usage = x509.KeyUsage(**{**_USAGE, "key_cert_sign": True, "crl_sign": True})
        certificate = (
            _certificate(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(_pem(certificate), _key_pem(key)), _key_pem(key)

    def sign_server(self, request: str, names: Iterable[str], now: datetime) -> SignedCertificate:
        """Return a certificate of the broker for these names and addresses."""
        found = x509.load_pem_x509_csr(request.encode())
        return self._sign(found, ExtendedKeyUsageOID.SERVER_AUTH, now, tuple(names))

    def sign_board(self, request: str, device: str, now: datetime) -> SignedCertificate:
        """Return a certificate of a board, which must have asked in its own name.

        Raises JoinRefused.
        """
        if len(request) > _MOST_REQUEST:
            raise JoinRefused("the certificate request is too large")
        try:
            found = x509.load_pem_x509_csr(request.encode())
            key, is_signed = found.public_key(), found.is_signature_valid
        except (ValueError, UnsupportedAlgorithm, InvalidSignature):
            raise JoinRefused("the certificate request is damaged") from None
        if not is_signed or not isinstance(key, ec.EllipticCurvePublicKey):
            raise JoinRefused("the certificate request is not signed by a key that is known here")
        if found.subject != _named(device):
            raise JoinRefused(f"the certificate request does not name {device}")
        return self._sign(found, ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def revocations(self, serials: Iterable[int]) -> str:
        """Return the list of revoked certificates, PEM. It counts as long as the authority."""
        begin = self._certificate.not_valid_before_utc
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(begin)
            # Mosquitto admits nobody once a list is too old.
            .next_update(self._certificate.not_valid_after_utc)
        )
        for serial in sorted(serials):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(revoked.revocation_date(begin).build())
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def _sign(
        self,
        request: x509.CertificateSigningRequest,
        usage: x509.ObjectIdentifier,
        now: datetime,
        names: tuple[str, ...] = (),
    ) -> SignedCertificate:
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101  # the callers check it
        ends = min(now + CERTIFICATE_LIFE, self._certificate.not_valid_after_utc)
        builder = (
            _certificate(request.subject, self._certificate.subject, key, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**{**_USAGE, "digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        return SignedCertificate(_pem(made), made.serial_number, made.not_valid_after_utc)


def names_of(certificate: str) -> frozenset[str]:
    """Return the names and addresses in a broker's certificate."""
    extensions = x509.load_pem_x509_certificate(certificate.encode()).extensions
    found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return frozenset(str(one.value) for one in found)


def end_of(certificate: str) -> datetime:
    """Return when a certificate ends."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def public_key_hash(certificate: str) -> bytes:
    """Return the SHA-256 of the public key, as curl's --pinnedpubkey compares it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(
        x509.load_pem_x509_certificate(certificate.encode())
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return digest.finalize()


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HEAD_START)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  # we make no others
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _pem(
    made: x509.Certificate | x509.CertificateSigningRequest | x509.CertificateRevocationList,
) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode()
