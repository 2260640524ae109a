"""Content credentials (C2PA): a signed statement, inside a picture's file, of what made it."""

from __future__ import annotations

import datetime
import io
import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jedi_diffusion import __version__
from jedi_diffusion.errors import JeDiError, UsageError

if TYPE_CHECKING:
    import c2pa
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for what a model makes that was trained on samples."""
CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
RSA_BITS = 2048
"""Shortest RSA key that C2PA allows."""


Seal = Callable[[bytes], bytes]
"""From a PNG, JPEG or WebP to the same with a signature inside."""


def unsigned(picture: bytes) -> bytes:
    """Return the seal that signs nothing."""
    return picture


def seal_of(files: tuple[str, str] | None, model: str) -> Seal:
    """Return what signs pictures of a model with a certificate and its key, or nothing without them.

    Raises as `Credentials`.
    """
    return partial(Credentials(*files).sign, model=model) if files else unsigned


def made_with(model: str) -> str:
    """Return the mark of a picture."""
    return f"made with jedi-diffusion, model {model}"


def manifest(model: str) -> dict[str, object]:
    """Return what is signed: that jedi-diffusion made the picture, with which model, and that no
    camera did.
    """
    program = {"name": "jedi-diffusion", "version": __version__}
    action = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE,
        "softwareAgent": program,
        "description": made_with(model),
    }
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [action]}}
    return {"claim_generator_info": [program], "assertions": [actions]}


def media_type(picture: bytes) -> str:
    """Of a PNG, JPEG or WebP, as its first bytes tell."""
    if picture.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/webp" if picture[8:12] == b"WEBP" else "image/png"


class Credentials:
    """Signs PNGs, JPEGs and WebPs. Everything that would make signing fail is found when it is made.

    certificate: a PEM file, the signer's own certificate first, then those that lead to its root. key: a PEM
    file with the private key, without a password. No timestamp is asked for, so nothing leaves the machine.
    Raises UsageError, JeDiError without the extra.
    """

    def __init__(self, certificate: str | Path, key: str | Path) -> None:
        try:
            import c2pa
            from cryptography import x509  # which c2pa itself needs
        except ModuleNotFoundError as error:
            raise JeDiError(
                f"--content-credentials needs the package {error.name}: pip install "
                "'jedi-diffusion[credentials]'."
            ) from error
        self._c2pa, self._lock = c2pa, threading.Lock()
        chain = _read(certificate)
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
        except ValueError as error:
            raise UsageError(f"{certificate} holds no certificate in PEM form.") from error
        private, algorithm = _load_key(key)
        if leaf.public_key() != private.public_key():
            raise UsageError(f"The key in {key} does not belong to the first certificate in {certificate}.")
        _check_dates(leaf, certificate)
        self._signer = self._make_signer(algorithm, chain, private, certificate)
        self._context = c2pa.Context(c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}))
        self._try(certificate)

    def sign(self, picture: bytes, model: str) -> bytes:
        """Return the file with a signed manifest; pixels and text stay as they are. Safe from any thread.

        Raises JeDiError, as when the certificate has expired meanwhile.
        """
        try:
            with self._lock, self._c2pa.Builder(json.dumps(manifest(model)), self._context) as builder:
                signed = io.BytesIO()
                builder.sign(self._signer, media_type(picture), io.BytesIO(picture), signed)
        except self._c2pa.C2paError as error:
            raise JeDiError(f"The picture cannot be signed: {_reason(error)}.") from error
        return signed.getvalue()

    def _make_signer(
        self, algorithm: str, chain: bytes, private: PrivateKey, path: str | Path
    ) -> c2pa.Signer:
        from cryptography.hazmat.primitives import serialization as form

        pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        kind = self._c2pa.C2paSigningAlg[algorithm]
        try:
            return self._c2pa.Signer.from_info(self._c2pa.C2paSignerInfo(kind, chain, pem, None))
        except self._c2pa.C2paError as error:
            raise UsageError(f"The certificate in {path} cannot be used: {_reason(error)}.") from error

    def _try(self, path: str | Path) -> None:
        """Sign something, because the library checks what a certificate is for only then."""
        from PIL import Image

        from jedi_diffusion.pictures import png_bytes

        try:
            self.sign(png_bytes(Image.new("RGB", (8, 8))), "none")
        except JeDiError as error:
            reason = _reason(error.__cause__ or error)
            raise UsageError(f"The certificate in {path} cannot sign pictures: {reason}.") from error


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _load_key(path: str | Path) -> tuple[PrivateKey, str]:
    """Return a private key and the name of its algorithm. Raises UsageError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    data = _read(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise UsageError(f"The key in {path} has a password; give one without.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} holds no private key in PEM form.") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key, "ED25519"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return key, CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= RSA_BITS:
        return key, "PS256"
    allowed = f"P-256, P-384, P-521, Ed25519, or RSA of at least {RSA_BITS} bits"
    raise UsageError(f"The key in {path} is of a kind that C2PA does not allow; take {allowed}.")


def _check_dates(certificate: x509.Certificate, path: str | Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise UsageError(f"The certificate in {path} expired on {last:%Y-%m-%d}; take a newer one.")
    if now < first:
        raise UsageError(f"The certificate in {path} is not valid before {first:%Y-%m-%d}.")


def _reason(error: BaseException) -> str:
    """Return what the library says, without the name of its error class and the full stop."""
    return str(error).removeprefix("Signature: ").rstrip(". \n")
