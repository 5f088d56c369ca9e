"""Certificates of one fleet: an authority that lives as long as the learner, and what it signs.

Servers make their own keys and ask for a signature, so that no secret travels: Ray's own messages are not encrypted.
Clients show a certificate of the same authority; others cannot step or reset the environments.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.types import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )

VALID = datetime.timedelta(days=365)
"""Longer than any run."""
EARLY = datetime.timedelta(hours=1)
"""Other machines' clocks may be behind."""
FILES = ("ca.pem", "learner.pem", "learner.key")
"""What the learner shows servers, and knows them by."""


class Asked(NamedTuple):
    """A server's own key, which stays with it, and its request for a certificate; both in PEM."""

    key: bytes
    request: bytes


class Extension(NamedTuple):
    """What a certificate says beside its name and key."""

    value: x509.ExtensionType
    critical: bool = False


def ask(host: str) -> Asked:
    """A new key, and the request for a certificate of the IP address or name `host`."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name("shoal environment server"))
        .add_extension(_addresses(host), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Asked(_private(key), wanted.public_bytes(serialization.Encoding.PEM))


class Authority:
    """Signs for one fleet; its key is in this process's memory alone."""

    def __init__(self) -> None:
        """A new one."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("shoal fleet")
        extensions = [
            Extension(x509.BasicConstraints(ca=True, path_length=0), critical=True),
            _usage(signs=True),
        ]
        self.certificate = self._issue(self._name, self._key.public_key(), extensions)
        """In PEM; anybody may know it."""

    def sign(self, request: bytes, host: str) -> bytes:
        """A server's certificate in PEM.

        Args:
            request: as `ask` made it.
            host: where the server is; the request must be for that alone.

        Raises:
            ConfigError: it is for another address, or not signed with its own key.
        """
        wanted = x509.load_pem_x509_csr(request)
        named = wanted.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if not wanted.is_signature_valid or named.value != _addresses(host):
            raise ConfigError(
                f"the server at {host} asked for a certificate of another address"
            )
        extensions = [Extension(named.value), *_end(ExtendedKeyUsageOID.SERVER_AUTH)]
        return self._issue(wanted.subject, wanted.public_key(), extensions)

    def write_client(self, folder: Path) -> None:
        """Writes `FILES` into a folder that nobody else may enter."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._issue(
            _name("shoal learner"),
            key.public_key(),
            _end(ExtendedKeyUsageOID.CLIENT_AUTH),
        )
        parts = (self.certificate, own, _private(key))
        for name, data in zip(FILES, parts, strict=True):
            write_private(folder / name, data)

    def _issue(
        self,
        subject: x509.Name,
        key: CertificatePublicKeyTypes,
        extensions: Sequence[Extension],
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        begun = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLY)
            .not_valid_after(now + VALID)
        )
        public = self._key.public_key()
        told = [
            Extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public)),
            Extension(x509.SubjectKeyIdentifier.from_public_key(key)),
        ]
        for extension in (*extensions, *told):
            begun = begun.add_extension(extension.value, critical=extension.critical)
        signed = begun.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


@contextmanager
def files_of(
    certificate: bytes, key: bytes, authority: bytes
) -> Generator[tuple[str, str, str]]:
    """Paths of a certificate, its key and its authority's, in a folder that is gone with the block."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-"))
    parts = {"cert.pem": certificate, "own.key": key, "ca.pem": authority}
    try:
        for name, data in parts.items():
            write_private(folder / name, data)
        cert, own, ca = (str(folder / name) for name in parts)
        yield cert, own, ca
    finally:
        shutil.rmtree(folder)


def write_private(path: Path, data: bytes) -> None:
    """A new file that only its owner may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _addresses(host: str) -> x509.SubjectAlternativeName:
    try:
        return x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    except ValueError:
        return x509.SubjectAlternativeName([x509.DNSName(host)])


def _end(use: x509.ObjectIdentifier) -> list[Extension]:
    """What a certificate of a server or a client says: that it signs no others, and what it is for."""
    return [
        Extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        _usage(signs=False),
        Extension(x509.ExtendedKeyUsage([use])),
    ]


def _usage(*, signs: bool) -> Extension:
    usage = x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
    return Extension(usage, critical=True)


def _private(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
