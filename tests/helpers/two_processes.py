"""Several commands of `jedi train`, one after the other, in two processes that torchrun starts once.

A start costs seconds, so tests put all their commands into one. ["forget", FOLDER] removes the newest
checkpoint of a run, which then goes on from the one before.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def run_in_two_processes(commands: Sequence[Sequence[str]]) -> str:
    """What the main process printed; fails if one of the commands did."""
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(_free_port())]
    done = subprocess.run(
        [sys.executable, *words, __file__, json.dumps([list(map(str, each)) for each in commands])],
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _main() -> None:
    from accelerate.state import AcceleratorState

    from jedi_diffusion.cli import main
    from jedi_diffusion.train import samples
    from jedi_diffusion.trainer.state import checkpoints

    samples.STEPS = 2
    for command in json.loads(sys.argv[1]):
        if command[0] == "forget":
            if os.environ["RANK"] == "0":  # the other one waits for it when the next command begins
                shutil.rmtree(checkpoints(Path(command[1]) / "state")[-1])
            continue
        status = main([*command, "--device", "cpu", "--processes", "2"])
        if status:
            sys.exit(status)
        AcceleratorState._reset_state(reset_partial_state=True)


if __name__ == "__main__":
    _main()
