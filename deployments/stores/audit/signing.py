"""The key pair that checkpoints are signed with; the public half proves them to anybody."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deployments.errors import RagError
from deployments.stores.secretfile import create_secret, write_secret

KEY_FILE = "audit.key"
PUBLIC_FILE = "audit.pub"
NUM_BYTES = 32


class Signer:
    """Signs, and checks what was signed."""

    def __init__(self, private: bytes) -> None:
        """Take the 32 bytes of an Ed25519 key."""
        self._private = Ed25519PrivateKey.from_private_bytes(private)
        self._public = self._private.public_key()

    @property
    def public(self) -> bytes:
        """Return the 32 bytes of the public key."""
        raw = serialization.Encoding.Raw
        return self._public.public_bytes(raw, serialization.PublicFormat.Raw)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of a signature."""
        return self._private.sign(message)

    def is_signed(self, message: bytes, signature: bytes) -> bool:
        """Return whether a signature is ours, and of this message."""
        return is_signed(self._public, message, signature)


def is_signed(public: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    """Return whether a key signed a message."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def open_signer(state_path: Path) -> Signer:
    """Return the installation's key pair, created at the first call.

    Raises:
        RagError: the file is damaged.
        StoreUnavailable: it cannot be written.
    """
    path = state_path / KEY_FILE
    if not path.exists():
        private = Ed25519PrivateKey.generate().private_bytes_raw()
        create_secret(path, private)
    found = path.read_bytes()
    if len(found) != NUM_BYTES:
        raise RagError(f"{KEY_FILE} in the state folder is damaged: no checkpoint can be signed")
    signer = Signer(found)
    if not (state_path / PUBLIC_FILE).exists():
        write_secret(state_path / PUBLIC_FILE, signer.public.hex().encode() + b"\n")
    return signer
