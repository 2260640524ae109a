"""`jedi generate --dry-run`: what would be done, by the model's configuration alone; nothing is made."""

import re

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import cli
from jedi_diffusion.weights import parameter_counts
from tests.helpers.small_klein import save_klein
from tests.helpers.small_pipelines import save_joint, save_sd14


@pytest.fixture
def dry(tmp_path, capsys):
    """What it prints with two photos, of a model whose weights cannot be loaded."""
    for number, size in enumerate([(1600, 1200), (80, 112)]):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")

    def run(model, *words):
        photos = [word for n in (0, 1) for word in ("--reference", str(tmp_path / f"{n}.png"))]
        before = sorted(tmp_path.rglob("*"))
        command = ["generate", "--dry-run", "--model", str(model), "--prompt", "a dog", *photos, *words]
        assert cli.main(command) == 0, capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().out

    return run


def test_says_the_models_own_settings_and_how_it_reads_references(dry, tmp_path):
    save_klein(tmp_path / "klein")
    said = dry(tmp_path / "klein", "--steps", "9", "--size", "64")
    for line in (
        r"Flux2KleinPipeline with a Flux2Transformer2DModel; reads references as it is",
        r"Its own: +guidance 1.0, guidance_mode text_first, image_guidance 1.0, coupling joint",
        r"Given: +steps 9, size 64",
        r"Pictures: +1 of 64 x 64 pixels, 1 at once",
        r"0.png, 1600 x 1200 pixels, read as 1168 x 880",
        r"1.png, 80 x 112 pixels, read as 80 x 112",
        r"Memory: .*GB for weights in float32 .* GB are free on cpu",
        r"Time: +about \d+ s for [\d.e-]+ TFLOP",
        r"Nothing was made.",
    ):
        assert re.search(line, said), line


def test_a_single_image_model_runs_untrained_and_more_work_is_more(dry, tmp_path):
    save_sd14(tmp_path / "sd")
    said = {}
    for name, words in {"few": ("--steps", "2"), "many": ("--steps", "20")}.items():
        text = dry(tmp_path / "sd", "--size", "64", "--images-per-prompt", "3", *words)
        assert "a single-image model, runs untrained" in text
        assert "3 of 64 x 64 pixels, 3 at once" in text
        said[name] = float(re.search(r"for ([\d.e-]+) TFLOP", text)[1])
    assert 5 < said["many"] / said["few"] < 10


def test_weights_are_counted_by_their_headers(tmp_path):
    from jedi_diffusion import JeDiPipeline

    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path / "joint"))
    counts = parameter_counts(tmp_path / "joint")
    for name in ("unet", "vae", "text_encoder"):
        held = sum(each.numel() for each in getattr(pipe, name).parameters())
        assert counts[name] == held, name
