"""Real photos through the command line on SD 1.4 and SDXL folders of narrow layers and random weights."""

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="module", params=["sd14", "sdxl"])
def base_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers import small_pipelines

    return getattr(small_pipelines, f"save_{request.param}")(
        tmp_path_factory.mktemp("models") / request.param
    )


def test_photos_at_512(base_model, jedi, dreambench, tmp_path) -> None:
    photos = sorted((dreambench / "dog").glob("*.jpg"))[:2]
    done = jedi(
        *("generate", "--model", base_model, "--prompt", "a dog on the beach", "--out", tmp_path),
        *(word for photo in photos for word in ("--reference", photo)),
        *("--reference-prompt", "a photo of a dog", "--size", 512, "--steps", 2, "--null-set", "single"),
    )
    assert done.status == 0, done.err
    with Image.open(tmp_path / "a-dog-on-the-beach_0.png") as picture:
        assert picture.size == (512, 512)
        assert len(picture.resize((8, 8)).getcolors()) > 8
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert len(settings["references"]) == 2
    assert "untrained" in done.err
