"""Generation: each picture once, with its own prompt and seed, also under SIGKILL."""

import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError, RecipeError
from jedi_diffusion.evaluation.dreambench import open_dreambench
from jedi_diffusion.evaluation.generate import generate, open_method_folder, pending
from jedi_diffusion.evaluation.layout import find_pictures
from jedi_diffusion.pictures import read_parameters
from tests.helpers.small_benchmarks import make_clone


class Painter:
    """Paints noise that depends on the references, the prompt and the seed; writes down each seed."""

    def __init__(self, log: Path, wait: float = 0) -> None:
        self.log, self.wait = log, wait

    def __call__(
        self,
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        assert len(references) == len(reference_prompts)
        made = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            with self.log.open("a") as file:
                file.write(f"{seed}\n")
            first = np.asarray(references[0]).sum()
            rng = np.random.default_rng([int(first), len(prompt), seed])
            made.append(Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)))
            time.sleep(self.wait)
        return made


def test_every_case_gets_its_picture_once(tmp_path: Path) -> None:
    wanted = open_dreambench(make_clone(tmp_path / "data"), references=2, samples=3)
    log = tmp_path / "log"
    made = tmp_path / "made"
    assert generate(wanted, Painter(log), made, batch=4) == 18
    assert generate(wanted, Painter(log), made, batch=4) == 0
    assert sorted(map(int, log.read_text().split())) == sorted(case.seed for case in wanted.cases)
    for case, path in find_pictures(made, wanted).items():
        parameters = read_parameters(path)
        assert (parameters["prompt"], parameters["seed"]) == (case.text, case.seed)
    gone = made / f"{wanted.cases[7].name}.png"
    before = gone.read_bytes()
    gone.unlink()
    assert [[case.name for case in group] for group in pending(wanted, made)] == [[wanted.cases[7].name]]
    assert generate(wanted, Painter(log), made, batch=1) == 1
    assert gone.read_bytes() == before


def test_kills_lose_and_repeat_no_picture(tmp_path: Path) -> None:
    wanted = open_dreambench(make_clone(tmp_path / "data"), inputs="all", samples=2)
    log, made = tmp_path / "log", tmp_path / "made"
    waits, kills = random.Random(0), 0
    while pending(wanted, made):
        done = {str(path): path.read_bytes() for path in made.rglob("*.png")} if made.is_dir() else {}
        child = os.fork()
        if child == 0:
            generate(wanted, Painter(log, wait=0.003), made, batch=2)
            os._exit(0)
        time.sleep(waits.uniform(0.02, 0.12))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert all(Path(path).read_bytes() == data for path, data in done.items())
    assert kills > 0
    generate(wanted, Painter(log), made)
    assert not list(made.rglob(".*"))
    assert len(log.read_text().split()) <= len(wanted.cases) + 2 * kills  # a kill costs its batch at most
    generate(wanted, Painter(tmp_path / "log2"), tmp_path / "again", batch=7)
    found, expected = find_pictures(made, wanted), find_pictures(tmp_path / "again", wanted)
    assert all(found[case].read_bytes() == expected[case].read_bytes() for case in wanted.cases)


def test_a_method_with_too_few_pictures_is_refused(tmp_path: Path) -> None:
    wanted = open_dreambench(make_clone(tmp_path / "data"), samples=2)
    with pytest.raises(ModelError, match="4 prompts with 1 pictures"):
        generate(wanted, lambda references, names, prompts, seeds: [references[0]], tmp_path / "made")


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    record = {"steps": 3, "model": "a"}
    assert open_method_folder(tmp_path / "made", record) == open_method_folder(tmp_path / "made", record)
    with pytest.raises(RecipeError, match=r"made otherwise \(another steps\)"):
        open_method_folder(tmp_path / "made", {"steps": 4, "model": "a"})
    (tmp_path / "made" / "method.json").write_text("{")
    with pytest.raises(RecipeError, match=r"method\.json cannot be read"):
        open_method_folder(tmp_path / "made", record)
