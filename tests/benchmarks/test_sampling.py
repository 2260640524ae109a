"""benchmarks/sampling.py on a tiny model: every form runs, and the last line is the JSON that others read."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from diffusers import Flux2KleinPipeline

from tests.helpers.small_flux2 import KLEIN_4B, tiny_transformer
from tests.helpers.small_klein import klein_parts, save_klein
from tests.helpers.small_pipelines import save_joint

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sampling.py"


def test_prints_every_form_and_its_figures(tmp_path, capsys, monkeypatch) -> None:
    model = save_joint(tmp_path / "model")
    words = ["--model", model, "--steps", 2, "--repetitions", 1]
    monkeypatch.setattr(sys, "argv", ["sampling.py", *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    flops = figures.pop("flops_over_plain")
    assert figures.keys() == {"cached_3_over_plain", "seconds_per_picture", "worst_time_over_flops"}
    assert all(value > 0 for value in figures.values())
    forms = [line for line in lines if line.startswith(("plain", "joint", "cached", "kept"))]
    assert len(forms) == len(flops) == 10
    assert 1 == flops["plain"] < flops["kept, a quarter, 3"] < flops["kept, 3"] < flops["cached, 3"]
    assert flops["cached, 3"] < flops["joint, null joint (paper), 3"]


def test_counts_a_transformer_by_its_configuration(tmp_path, capsys, monkeypatch) -> None:
    """The bars on what a joint-image program may cost, on the real shape of [klein] 4B."""
    save_klein(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    config = tmp_path / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | KLEIN_4B))
    monkeypatch.setattr(sys, "argv", ["sampling.py", "--model", str(tmp_path), "--count"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    flops = json.loads(capsys.readouterr().out.splitlines()[-1])["flops_over_plain"]
    assert flops["joint, 3"] <= 5.5
    assert flops["cached, 3"] <= 2.4
    assert flops["kept, 3"] <= 1.5
    assert flops["kept, a quarter, 3"] <= 1.15


@pytest.mark.slow
def test_a_transformer_takes_the_time_of_what_it_computes(tmp_path, capsys, monkeypatch) -> None:
    """Of every form over text-to-image, by a transformer that is wide enough for its operations to count."""
    wide = {"num_layers": 1, "num_single_layers": 2, "attention_head_dim": 64, "num_attention_heads": 12}
    parts = klein_parts()
    parts["transformer"] = tiny_transformer(**wide, mlp_ratio=3.0, axes_dims_rope=(16, 16, 16, 16))
    Flux2KleinPipeline(**parts, is_distilled=True).save_pretrained(tmp_path)
    words = ["--model", tmp_path, "--size", 256, "--steps", 2, "--repetitions", 3, "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["sampling.py", *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["worst_time_over_flops"] <= 1.15
