"""Print how far a model's predictions are off, with the own reference, another's, and none, by noise level.

python tools/prediction_errors.py --model runs/showroom/model --packages packages --folder showroom
python tools/prediction_errors.py --model runs/small-flux2/run/model --resolution 64 --coupling joint
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from jedi_diffusion.joint import Flow, process_of
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.train.prediction_errors import Pairs, prediction_errors
from jedi_showroom.source import ShowroomSource
from jedi_toybox import folder_of
from jedi_toybox.source import ToyboxSource

TIMESTEPS = (999, 900, 700, 500, 300)
FLOW_TIMES = (1.0, 0.9, 0.75, 0.6, 0.4, 0.2)


@dataclass(frozen=True)
class Options:
    """Errors on subjects never trained on, target and reference by one camera."""

    packages: str | None = None
    """Folder that holds the showroom's downloaded packages; without one the subjects are the toybox's."""
    folder: str = "showroom"
    """Folder that `jedi showroom build` filled."""
    model: str = "toybox"
    """"toybox" (bundled), or a folder."""
    coupling: Literal["joint", "cached"] = "cached"
    """How the reference is read; "joint" for families that read it clean."""
    subjects: int = 96
    """Sets, two pictures each."""
    resolution: int = 128
    """Side of a picture in pixels."""
    seed: int = 0
    """Other sets and noise."""


def main() -> None:
    given = tyro.cli(Options)
    pipe = JeDiPipeline.from_pretrained(folder_of(given.model), dtype=torch.float32)
    source: ShowroomSource | ToyboxSource
    if given.packages is None:
        source = ToyboxSource(given.seed, 2, alike=1.0, split="held_out", compiled=False)
    else:
        source = ShowroomSource(
            Path(given.packages), Path(given.folder), given.seed, alike=1.0, split="held_out", compiled=False
        )
    process = process_of(pipe.scheduler)
    rows = prediction_errors(
        pipe.backbone,
        Pairs.of_sets(source.sets(0, given.subjects, 2, given.resolution, "cpu"), pipe),
        process,
        FLOW_TIMES if isinstance(process, Flow) else TIMESTEPS,
        torch.Generator().manual_seed(given.seed),
        given.coupling,
    )
    print("| time | noise | own | another's | none |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.time:g} | {row.noise:.2f} | {row.own:.3f} | {row.other:.3f} | {row.none:.3f} |")


if __name__ == "__main__":
    main()
