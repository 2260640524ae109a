"""Pictures of a server with `--content-credentials`: by each way out they are signed, or there is none."""

import base64
import io
import zipfile

import pytest
from PIL import Image

from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.session import Controls, Photo, Session, ask_of, keep, write_zip
from jedi_diffusion.credentials import Seal, seal_of
from jedi_diffusion.errors import JeDiError
from tests.helpers.certificates import Signer, make_signer, read_manifest
from tests.helpers.fake_runners import CARD, FakeRunner, wait


@pytest.fixture
def signer(tmp_path) -> Signer:
    return make_signer(tmp_path / "signer")


@pytest.fixture
def seal(signer) -> Seal:
    return seal_of(signer.files, CARD.name)


def test_the_api_signs(serve, seal, signer) -> None:
    with serve(service={"seal": seal}).client() as client:
        form = {"prompt": "a robot", "n": 2}
        answer = client.post("/v1/images/generations", json=form).json()
        address = client.post("/v1/images/generations", json=form | {"response_format": "url"}).json()
        signed = [base64.b64decode(row["b64_json"]) for row in answer["data"]]
        signed += [client.get(row["url"]).content for row in address["data"]]
    for data in signed:
        state, manifest = read_manifest(data, signer.root)
        (action,) = manifest["assertions"][0]["data"]["actions"]
        assert (state, action["description"]) == ("Trusted", "made with jedi-diffusion, model toybox")
        assert Image.open(io.BytesIO(data)).info["Software"] == action["description"]


def test_the_page_signs(seal, signer, tmp_path) -> None:
    session, controls = Session([Photo(Image.new("RGB", (16, 16)), "a")]), Controls(prompts="a robot")
    engine = Engine([FakeRunner()])
    job = wait(engine.submit(ask_of(session, controls, CARD)))
    engine.close(grace=0)
    keep(session, job, controls, CARD, tmp_path, seal)
    with zipfile.ZipFile(write_zip(session, tmp_path)) as archive:
        data = archive.read(archive.namelist()[0])
    assert read_manifest(data, signer.root)[0] == "Trusted"
    assert session.made[0].path.read_bytes() == data


def test_without_a_signature_there_is_no_picture(serve) -> None:
    def expired(png: bytes) -> bytes:
        raise JeDiError("The picture cannot be signed: the certificate was not valid.")

    with serve(service={"seal": expired}).client() as client:
        answer = client.post("/v1/images/generations", json={"prompt": "a robot"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert "cannot be signed" in answer.json()["error"]["message"]
        assert client.get("/healthz").status_code == 200
