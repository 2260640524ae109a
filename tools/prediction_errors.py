"""Print how far a model's predictions are off, with the own reference, another's, and none, by noise level.

python tools/prediction_errors.py --model runs/showroom/model --packages packages --folder showroom
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from jedi_diffusion.joint import process_of
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.train.config import JointStage
from jedi_diffusion.train.pool import LatentPool
from jedi_diffusion.train.prediction_errors import prediction_errors
from jedi_showroom.source import ShowroomSource
from jedi_toybox import folder_of

TIMESTEPS = (999, 900, 700, 500, 300)


@dataclass(frozen=True)
class Options:
    """Errors on held-out subjects of the showroom, target and reference by one camera."""

    packages: str
    """Folder that holds the downloaded packages."""
    folder: str
    """Folder that `jedi showroom build` filled."""
    model: str = "toybox"
    """"toybox" (bundled), or a folder."""
    subjects: int = 96
    """Sets, two pictures each."""
    seed: int = 0
    """Other sets and noise."""


def main() -> None:
    given = tyro.cli(Options)
    source = ShowroomSource(
        Path(given.packages), Path(given.folder), given.seed, alike=1.0, split="held_out", compiled=False
    )
    pipe = JeDiPipeline.from_pretrained(folder_of(given.model), dtype=torch.float32)
    stage = JointStage(
        name="errors",
        kind="joint",
        subjects=given.subjects,
        pictures=2,
        steps=1,
        share=1,
        batch=1,
        learning_rate=1,
        set_sizes={2: 1},
    )
    pool = LatentPool.build(source, 0, stage, pipe.vae, pipe.tokenizer, "cpu")
    rows = prediction_errors(
        pipe.backbone,
        pipe.text_encoder,
        pool,
        process_of(pipe.scheduler),
        TIMESTEPS,
        torch.Generator().manual_seed(given.seed),
    )
    print("| timestep | noise | own | another's | none |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.timestep} | {row.noise:.2f} | {row.own:.3f} | {row.other:.3f} | {row.none:.3f} |")


if __name__ == "__main__":
    main()
