"""`jedi doctor`: what it finds, what it says of what is missing, and that its self-test can fail."""

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from jedi_diffusion import __version__, models
from jedi_diffusion.cli import doctor

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "make_picture", lambda: 1.25)


def test_a_sound_installation_makes_a_picture_and_says_what_is_there(jedi) -> None:
    done = jedi("doctor", "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert report["version"] == __version__
    assert report["devices"][0]["name"] == "cpu"
    assert 0 < report["devices"][0]["free"] <= report["devices"][0]["memory"]
    assert (Path(report["model"]) / "model_index.json").is_file()
    assert report["self_test"]["seconds"] > 0
    assert report["self_test"]["fault"] is None
    versions = {each["name"]: each["version"] for each in report["packages"]}
    assert versions["torch"] == metadata.version("torch")


def test_every_extra_is_described() -> None:
    assert set(doctor.EXTRAS) == set(PROJECT["optional-dependencies"]) - {"dev"}


@pytest.mark.usefixtures("no_picture")
def test_what_is_missing_or_does_not_fit_is_said_with_the_line_that_installs_it(jedi, monkeypatch) -> None:
    lines = ["tyro>=1", "torch>=99", "nosuch>=1", "c2pa-none>=1; extra == 'credentials'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    done = jedi("doctor")
    assert done.status == 0, done.err
    for said in (
        f"tyro {metadata.version('tyro')}\n",
        f"torch {metadata.version('torch')}, which does not fit: >=99 is needed",
        "nosuch is missing",
        "C2PA): missing c2pa-none: pip install 'jedi-diffusion[credentials]'",
        "the page and the API): there",
        "self-test: a picture in 1.25 s",
    ):
        assert said in done.out


def test_a_picture_that_is_not_finite_fails_the_test(jedi, monkeypatch) -> None:
    class Broken:
        def __call__(self, *_: object, **settings: object) -> object:
            images = torch.full((1, 3, doctor.SIDE, doctor.SIDE), float("nan"))
            return type("Output", (), {"images": images})

    monkeypatch.setattr(models, "load_model", lambda *_: Broken())
    done = jedi("doctor")
    assert done.status == 1
    assert done.err == "jedi: The self-test failed: The bundled model made a picture that is not finite.\n"
    assert "extras" in done.out


def test_whatever_breaks_the_model_is_one_sentence(jedi, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("libgomp.so.1 cannot be opened")

    monkeypatch.setattr(models, "load_model", broken)
    done = jedi("doctor", "--json")
    assert done.status == 1
    assert done.err == "jedi: The self-test failed: OSError: libgomp.so.1 cannot be opened.\n"
    assert json.loads(done.out)["self_test"]["fault"]


def test_a_package_that_is_not_installed_is_said(jedi, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGE", "no-such-distribution")
    done = jedi("doctor")
    assert (done.status, done.out) == (1, "")
    assert "is not installed for this Python" in done.err
