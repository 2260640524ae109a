"""Whole runs: the same result for any number of workers, after any death, and with models that fail."""

import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jedi_diffusion.errors import ModelError, OutputError, UsageError
from jedi_diffusion.synthesis import progress
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.outputs import OutputFolder
from jedi_diffusion.synthesis.recipe import PARTS, SynthesisRecipe
from jedi_diffusion.synthesis.runner import Job, run_local, sole_run, synthesize_recipe
from jedi_diffusion.synthesis.work import STEP_NAMES
from tests.helpers.synthesis_models import Failing, build, deadly, die, make_models, refuse

ITEMS = tuple(ObjectName(f"thing {number}") for number in range(6))


def job(folder: Path, workers: int = 1, make: Callable = build, **run: object) -> Job:
    recipe = SynthesisRecipe.model_validate(
        {
            "name": "test",
            "objects": [item.name for item in ITEMS],
            "stages": {"collages": 1, "collage_size": 64, "scene_size": 32, "min_area": 0.005},
            "models": {part: {"kind": "test"} for part in PARTS},
            "run": {"objects_per_shard": 1, "kept_collages": 1, "batch": 2, **run},
        }
    )
    return Job(recipe, folder, make, workers)


def make(given: Job, stopping: Callable[[], bool] = lambda: False) -> bytes:
    said: list[str] = []
    return synthesize_recipe(given, ITEMS, run_local, stopping, said.append).read_bytes()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(job(tmp_path_factory.mktemp("whole") / "run"))


def files(folder: Path) -> dict[str, bytes]:
    """Everything but markers, which hold seconds, and the lock."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name != ".lock" and not (path.parent.name == "shards" and path.suffix == ".json")
    }


def test_any_number_of_workers_makes_the_same(tmp_path: Path, manifest: bytes) -> None:
    assert make(job(tmp_path / "run", workers=2)) == manifest
    assert make(job(tmp_path / "other", batch=5)) == manifest
    assert files(tmp_path / "run").keys() == files(tmp_path / "other").keys()


@pytest.mark.parametrize("name", ["recipe.json", "objects.tsv", "manifest.jsonl"])
def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, manifest: bytes, name: str) -> None:
    left = tmp_path / "run" / f".{name}.221849b7e87e"
    left.parent.mkdir()
    left.write_bytes(b"half")
    assert make(job(tmp_path / "run")) == manifest
    assert not left.exists()


def test_kills_at_random_moments_lose_the_shard_in_flight_only(tmp_path: Path, manifest: bytes) -> None:
    waits = random.Random(0)
    folder = tmp_path / "run"
    start = time.perf_counter()
    make(job(tmp_path / "whole"))
    longest = 0.4 * (time.perf_counter() - start)
    killed, whole = 0, set[int]()
    for _ in range(60):
        child = os.fork()
        if child == 0:
            make(job(folder))
            os._exit(0)
        timer = threading.Timer(waits.uniform(0.001, longest), os.kill, (child, signal.SIGKILL))
        timer.start()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        timer.cancel()
        there = {each.shard for each in OutputFolder(folder).markers()}
        assert whole <= there, "a finished shard was lost"
        whole = there
        assert all(OutputFolder(folder).is_whole(number) for number in whole)
        if status != 0:
            killed += 1
        elif killed >= 2:
            break
        else:  # the machine is quicker now: a run that was hardly killed proves nothing
            shutil.rmtree(folder)
            killed, whole, longest = 0, set(), longest / 2
    assert killed >= 2, "the kills should meet runs"
    assert make(job(folder)) == manifest
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"], "nothing half is left"


def test_a_killed_worker_is_replaced(tmp_path: Path, manifest: bytes) -> None:
    given = job(tmp_path / "run", workers=2, make=partial(deadly, str(tmp_path / "died")))
    assert make(given) == manifest
    assert (tmp_path / "died").exists()
    always = job(tmp_path / "other", workers=2, make=die)
    with pytest.raises(ModelError, match="died 3 times while they made shard"):
        make(always)


def test_workers_tell_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights"):
        make(job(tmp_path / "run", workers=2, make=refuse))


def test_one_bad_record_is_rejected_and_the_run_goes_on(tmp_path: Path, manifest: bytes) -> None:
    sound = job(tmp_path / "sound")
    make(sound)
    captions = [
        step["seed"]
        for record in OutputFolder(sound.folder).records("set")
        for picture in record["pictures"]
        for step in picture["steps"]
        if step["stage"] == "caption"
    ]
    captioner = Failing([captions[4]])
    bad = job(tmp_path / "bad", make=lambda *_: make_models(captioner=captioner))
    make(bad)
    output = OutputFolder(bad.folder)
    (failed,) = [each for each in output.records("rejection") if each["reason"] == "model_failed"]
    assert (failed["stage"], failed["detail"]) == ("caption", "CUDA error: an illegal memory access")
    assert sum(marker.counts["caption"].made for marker in output.markers()) == len(captions) - 1
    # What is not of the same subject is as it was.
    same = {each["key"]: each for each in OutputFolder(sound.folder).records("set")}
    others = [each for each in output.records("set") if each["object"] != failed["object"]]
    assert len(others) == len(ITEMS) - 1
    assert all(same[each["key"]] == each for each in others)


def test_too_many_failures_stop_the_run(tmp_path: Path, manifest: bytes) -> None:
    given = job(tmp_path / "run", make=lambda *_: make_models(captioner=Failing()), failures=4)
    with pytest.raises(ModelError, match=r"failed on \d records, more than .* of 4; the last, 'thing 1' in"):
        make(given)
    assert [each.shard for each in OutputFolder(given.folder).markers()] == [0]
    # Mended, and with another limit, it goes on; the first shard keeps what it has.
    make(job(tmp_path / "run", failures=0))
    assert len(OutputFolder(given.folder).markers()) == len(ITEMS)


def test_a_full_disk_stops_the_run_and_leaves_whole_shards(tmp_path: Path, manifest: bytes) -> None:
    """The limit on file sizes stands in for the disk."""
    given = job(tmp_path / "run")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        try:
            make(given)
        except OutputError as error:
            os._exit(0 if str(tmp_path) in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not OutputFolder(given.folder).markers()
    assert not [path for path in (given.folder / "shards").iterdir() if path.suffix == ".tar"]
    assert make(given) == manifest


@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_to_stop_is_answered_between_batches(tmp_path: Path, manifest: bytes, workers: int) -> None:
    given = job(tmp_path / "run", workers)

    def stopping() -> bool:
        return len(list(given.folder.glob("shards/0*.json"))) >= 2

    with pytest.raises(KeyboardInterrupt, match=r"Stopped with \d of 6 shards whole; the same command"):
        make(given, stopping)
    assert 2 <= len(OutputFolder(given.folder).markers()) < 6
    assert not OutputFolder(given.folder).whole
    assert make(given) == manifest


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    make(job(tmp_path))
    with sole_run(tmp_path), pytest.raises(UsageError, match="Another run is writing"):
        make(job(tmp_path))


def test_a_shard_that_was_damaged_is_made_again(tmp_path: Path, manifest: bytes) -> None:
    given = job(tmp_path / "run")
    make(given)
    (given.folder / "shards" / "00003.tar").unlink()
    before = (given.folder / "shards" / "00002.json").stat().st_mtime_ns
    assert make(given) == manifest
    assert (given.folder / "shards" / "00002.json").stat().st_mtime_ns == before


def test_reports_count_what_went_in_and_out(tmp_path: Path) -> None:
    said: list[str] = []
    synthesize_recipe(job(tmp_path), ITEMS, run_local, say=said.append)
    head, *lines = said[-1].splitlines()
    assert head.startswith("6 of 6 shards, 6 sets, 18 pictures, ")
    assert "done in" in head
    rows = {line.split()[0]: line for line in lines}
    assert rows["instance"].split("rejected: ")[1] == "6 cut_by_border, 6 too_small"
    header = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[0])
    assert header["counts"]["instance"]["rejected"] == {"cut_by_border": 6, "too_small": 6}
    start = time.monotonic()
    synthesize_recipe(job(tmp_path), ITEMS, run_local, say=said.append)
    assert time.monotonic() - start < 5
    assert len(said) == 1


def test_a_shard_that_takes_long_is_reported_on_meanwhile(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    synthesize_recipe(job(tmp_path / "short"), ITEMS[:1], run_local, say=said.append)
    assert len(said) == 1
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    synthesize_recipe(job(tmp_path / "long"), ITEMS[:1], run_local, say=said.append)
    assert said[1].startswith("0 of 1 shards, 0 sets, 0 pictures, ")
    assert said[-1].startswith("1 of 1 shards, 1 sets, 3 pictures, ")
    assert [line.split()[0] for line in said[2].splitlines()[1:]] == list(STEP_NAMES)
