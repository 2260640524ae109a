"""Checkpoints under SIGKILL at random moments, and on a disk that is full."""

import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from jedi_diffusion.errors import OutputError
from jedi_diffusion.trainer.state import PARTIAL, checkpoints, load_state, save_state

KILLS, CUT_SHORT = 60, 15  # at least so many kills, and so many of them in the middle of a save


def tensors_of(step: int) -> dict[str, torch.Tensor]:
    return {f"weights/{n}": torch.full((200, 200), float(step)) for n in range(8)}


@pytest.mark.parametrize("keep_last", [1, 2])
def test_no_kill_leaves_a_checkpoint_that_does_not_load(tmp_path: Path, keep_last: int) -> None:
    waits = random.Random(keep_last)
    save_state(tmp_path, 0, tensors_of(0), {"spent": 0.0})
    before = cut_short = 0
    for kills in range(20 * KILLS):  # on a busy machine more of them come before a save
        if kills >= KILLS and cut_short >= CUT_SHORT:
            break
        child = os.fork()
        if child == 0:  # saves step after step until it is killed
            for step in range(before + 1, before + 10_000):
                save_state(tmp_path, step, tensors_of(step), {"spent": float(step)}, keep_last)
        time.sleep(waits.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        cut_short += len(list(tmp_path.glob(f"{PARTIAL}*")))
        tensors, facts = load_state(tmp_path, "cpu") or ({}, {})
        assert facts["step"] >= before
        assert facts["spent"] == facts["step"]
        assert tensors.keys() == tensors_of(0).keys()
        assert all(bool((value == facts["step"]).all()) for value in tensors.values())
        before = facts["step"]
    assert cut_short >= CUT_SHORT, "the kills should meet saves"
    save_state(tmp_path, before + 1, tensors_of(before + 1), {})
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{before + 1:08d}"]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """The limit on file sizes stands in for the disk: writes fail in the middle of a file."""
    save_state(tmp_path, 1, tensors_of(1), {})
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_state(tmp_path, 2, tensors_of(2), {})
        except OutputError as error:
            os._exit(0 if "step-00000002 cannot be written" in str(error) else 3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    tensors, _ = load_state(tmp_path, "cpu") or ({}, {})
    assert all(bool((value == 1).all()) for value in tensors.values())
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_old_checkpoints_go_and_chosen_ones_stay(tmp_path: Path) -> None:
    for step in range(10, 80, 10):
        save_state(tmp_path, step, tensors_of(step), {}, keep_last=2, keep_every=30)
    assert [int(path.name[-2:]) for path in checkpoints(tmp_path)] == [30, 60, 70]
    assert save_state(tmp_path, 70, tensors_of(0), {}).name == "step-00000070"
    tensors, _ = load_state(tmp_path, "cpu") or ({}, {})
    assert bool((tensors["weights/0"] == 70).all())
