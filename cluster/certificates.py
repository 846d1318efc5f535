"""The certificate that the edge shows: the operator's, or one that is made for a trial."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.errors import OperatorError

TRIAL_DAYS = 90
RENEW_DAYS = 7
NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, as PEM files."""

    certificate: Path
    key: Path

    def pem(self) -> bytes:
        """Return both in one, as HAProxy takes them.

        Raises:
            OperatorError: a file cannot be read, is no PEM, the two do not belong together, or
                the certificate is not valid now.
        """
        chain, key = _read(self.certificate), _read(self.key)
        try:
            first = x509.load_pem_x509_certificates(chain)[0]
            private = serialization.load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise OperatorError(
                f"{self.certificate} or {self.key} holds no certificate or key in PEM"
            ) from error
        if _public(first.public_key()) != _public(private.public_key()):
            raise OperatorError(f"{self.key} is not the key of {self.certificate}")
        if not first.not_valid_before_utc <= datetime.now(UTC) <= first.not_valid_after_utc:
            raise OperatorError(f"{self.certificate} is not valid now")
        return chain.rstrip() + b"\n" + key

    def changed_at(self) -> tuple[int, int]:
        """Return when the files were written, to see whether they were replaced."""
        try:
            return self.certificate.stat().st_mtime_ns, self.key.stat().st_mtime_ns
        except OSError:
            return 0, 0


def trial_pair(folder: Path, host: str) -> KeyPair:
    """Return a self-signed pair in a folder, made anew when it is about to end.

    Args:
        folder: private to its owner.
        host: what the edge listens on; the certificate is for it, this host's name and loopback.
    """
    pair = KeyPair(folder / "trial.crt", folder / "trial.key")
    if not _lasts(pair):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(pair.key, _private(key))
        write_private(pair.certificate, _certificate(key, host))
    return pair


def _lasts(pair: KeyPair) -> bool:
    try:
        pair.pem()
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    except OperatorError:
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)


def _certificate(key: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ragserve trial")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=TRIAL_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternatives(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _alternatives(host: str) -> list[x509.GeneralName]:
    names, addresses = {*NAMES, socket.gethostname()}, {*map(ipaddress.ip_address, ADDRESSES)}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        names.add(host)
    else:
        if not address.is_unspecified:
            addresses.add(address)
    return [*map(x509.DNSName, sorted(names)), *map(x509.IPAddress, sorted(addresses, key=str))]


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file anew that only its owner may read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
