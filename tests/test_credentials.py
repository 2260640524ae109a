"""Content credentials: what is signed, what a verifier sees, and what is wrong with a certificate or key."""

import io

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from PIL import Image

from jedi_diffusion import credentials
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.pictures import PARAMETERS_KEY, png_bytes
from tests.helpers.certificates import Signer, make_signer, pem_of, read_manifest

PICTURE = Image.effect_noise((24, 16), 60).convert("RGB")


@pytest.fixture
def signer(tmp_path) -> Signer:
    return make_signer(tmp_path / "signer")


def test_a_signed_picture_says_what_made_it(signer) -> None:
    png = png_bytes(PICTURE, {"seed": 1})
    signed = credentials.seal_of(signer.files, "toybox")(png)
    with Image.open(io.BytesIO(signed)) as picture:
        assert picture.tobytes() == PICTURE.tobytes()
        assert picture.info[PARAMETERS_KEY] == '{"seed": 1}'
    state, manifest = read_manifest(signed, signer.root)
    assert state == "Trusted"
    (action,) = manifest["assertions"][0]["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["description"] == "made with jedi-diffusion, model toybox"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/trainedAlgorithmicMedia")
    assert manifest["claim_generator_info"][0]["name"] == "jedi-diffusion"
    assert credentials.seal_of(None, "toybox")(png) == png


def test_a_changed_picture_and_a_strange_root_are_noticed(signer, tmp_path) -> None:
    signed = bytearray(credentials.seal_of(signer.files, "toybox")(png_bytes(PICTURE, {"seed": 1})))
    other = make_signer(tmp_path / "other")
    assert read_manifest(bytes(signed), other.root)[0] == "Valid"  # whole, but by nobody we know
    place = signed.index(b'{"seed": 1}')
    signed[place : place + 11] = b'{"seed": 2}'
    assert read_manifest(bytes(signed), signer.root)[0] == "Invalid"


def test_each_thing_that_is_wrong_is_one_sentence(signer, tmp_path) -> None:
    chain, key = signer.files
    expired = make_signer(tmp_path / "expired", last_day=-1)
    early = make_signer(tmp_path / "early", first_day=1)
    other = make_signer(tmp_path / "other")
    mail = make_signer(tmp_path / "mail", for_signing=False)
    locked, short, strange = (tmp_path / name for name in ("locked.pem", "short.pem", "strange.pem"))
    locked.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    short.write_bytes(pem_of(rsa.generate_private_key(65537, 1024)))
    strange.write_bytes(pem_of(ec.generate_private_key(ec.SECP256K1())))
    cases = [
        ((tmp_path / "none.pem", key), "none.pem cannot be read: No such file"),
        ((chain, tmp_path / "none.pem"), "none.pem cannot be read: No such file"),
        ((tmp_path, key), "Is a directory"),
        ((key, key), "holds no certificate in PEM form"),
        ((chain, chain), "holds no private key in PEM form"),
        ((chain, other.key), "does not belong to the first certificate"),
        ((chain, locked), "has a password"),
        ((chain, short), "RSA of at least 2048 bits"),
        ((chain, strange), "C2PA does not allow"),
        (expired.files, "expired on 20"),
        (early.files, "not valid before 20"),
        (mail.files, "cannot sign pictures"),
    ]
    for files, said in cases:
        with pytest.raises(UsageError) as wrong:
            credentials.Credentials(*files)
        assert said in str(wrong.value)
        assert "\n" not in str(wrong.value)
        assert str(wrong.value).endswith(".")


def test_a_certificate_that_expires_later_stops_signing(signer, monkeypatch, tmp_path) -> None:
    expired = make_signer(tmp_path / "expired", last_day=-1)
    monkeypatch.setattr(credentials, "_check_dates", lambda *_: None)
    monkeypatch.setattr(credentials.Credentials, "_try", lambda *_: None)
    seal = credentials.seal_of(expired.files, "toybox")
    with pytest.raises(JeDiError, match="cannot be signed"):
        seal(png_bytes(PICTURE))


KEYS = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KEYS)
def test_kinds_of_keys(kind, tmp_path) -> None:
    signer = make_signer(tmp_path / "signer", key=KEYS[kind]())
    signed = credentials.seal_of(signer.files, "toybox")(png_bytes(PICTURE))
    assert read_manifest(signed, signer.root)[0] == "Trusted"
