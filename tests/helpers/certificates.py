"""Certificates for tests: a root, and signers under it, made on the spot."""

import datetime
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from jedi_diffusion.credentials import media_type

DAY = datetime.timedelta(days=1)


def name_of(text: str) -> x509.Name:
    names = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "jedi-diffusion tests"))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names])


def pem_of(key: Any, password: bytes = b"") -> bytes:
    form = serialization
    secret = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret)


@dataclass(frozen=True)
class Signer:
    """Files with a signer's chain and key, and the root's certificate, which a verifier trusts."""

    certificate: Path
    key: Path
    root: bytes

    @property
    def files(self) -> tuple[str, str]:
        return str(self.certificate), str(self.key)


def make_signer(
    folder: Path, first_day: int = -30, last_day: int = 30, for_signing: bool = True, key: Any = None
) -> Signer:
    """A signer whose certificate is valid between these days from now; `for_signing`: that says so."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    key = key or ec.generate_private_key(ec.SECP256R1())
    root = certificate("root", root_key.public_key(), root_key, (-60, 60), is_root=True)
    leaf = certificate("signer", key.public_key(), root_key, (first_day, last_day), for_signing=for_signing)
    folder.mkdir(exist_ok=True)
    (folder / "chain.pem").write_bytes(leaf + root)
    (folder / "key.pem").write_bytes(pem_of(key))
    return Signer(folder / "chain.pem", folder / "key.pem", root)


def certificate(
    name: str, key: Any, root_key: Any, days: tuple[int, int], is_root: bool = False, for_signing: bool = True
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    ) | {"encipher_only": False, "decipher_only": False}
    builder = (
        x509.CertificateBuilder(name_of("root"), name_of(name), key, x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(is_root, None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )
    )
    if not is_root and for_signing:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_manifest(picture: bytes, root: bytes) -> tuple[str, dict[str, Any]]:
    """What a verifier that trusts the root says ("Trusted", "Valid", "Invalid"), and the manifest."""
    import c2pa

    settings = {"trust": {"trust_anchors": root.decode()}, "verify": {"verify_trust": True}}
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    with c2pa.Reader(media_type(picture), io.BytesIO(picture), context=context) as reader:
        return reader.get_validation_state(), reader.get_active_manifest()
