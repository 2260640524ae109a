"""`jedi evaluate score`: scores pictures that any program made, in a folder whose layout is stated."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from jedi_diffusion import devices
from jedi_diffusion.cli import show_notices
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation import judging
from jedi_diffusion.evaluation.judging import Averaging, EncodersName, Inputs, Masking, ProtocolName
from jedi_diffusion.files import json_bytes, make_folder, write_file
from jedi_diffusion.options import check_options
from jedi_diffusion.vision.settings import GROUNDING_DINO, SAM

if TYPE_CHECKING:
    from jedi_diffusion.evaluation.scoring import Results

Encoders = Annotated[
    tyro.conf.UseAppendAction[tuple[EncodersName, ...]], tyro.conf.arg(aliases=("--encoders",))
]
Repeated = tyro.conf.UseAppendAction[tuple[str, ...]]


@dataclass(frozen=True)
class ScoreOptions:
    """Score pictures that another program made: likeness, prompt, copies, diversity, with 95% intervals.

    The folder holds <subject>/<input>/<prompt>_<sample>.png, for instance dog6/02/07_0.png, or
    dog6/00+02+04/07_0.png for three references; --plan lists every file with its references, prompt and
    seed. True photos, other subjects and copied inputs are scored beside. docs/scoring.md says what the
    numbers mean.
    """

    data: str
    """A clone of github.com/google/dreambooth, or a folder of own subjects."""
    pictures: Repeated = ()
    """Folder of pictures, or NAME=FOLDER. Several are scored side by side."""
    out: str | None = None
    """Folder for scores.json, scores.csv, scores.md, scores.tex and report.html."""
    plan: str | None = None
    """Write what is to be drawn into this JSON file, and stop."""
    protocol: ProtocolName = "dreambench"
    """DreamBench, or a folder with a subfolder of photos for each subject and a prompts.txt."""
    references: int = 1
    """Photos that each picture is made from."""
    inputs: Inputs = "picks"
    """One choice a subject (DreamBench: the 30 shared picks), or all photos in turn."""
    samples: int = 4
    """Pictures of each prompt."""
    subject: Repeated = ()
    """Only this subject of DreamBench; may be given several times."""
    seed: int = 0
    """Draws the further photos of several references."""
    encoder: Encoders = ()
    """CLIP and DINO (pretrained, the default), EfficientNet-Lite (lite2, lite0: no download), or the
    toybox's, which know its pictures only. May be given several times."""
    clip: str = "openai/clip-vit-base-patch32"
    """CLIP ViT-B/32: a transformers folder of safetensors, or a Hub id."""
    dino: str = "facebook/dino-vits16"
    """DINO ViT-S/16: a transformers folder of safetensors, or a Hub id."""
    places: str | None = None
    """Judges the place that a prompt names: a file of `jedi evaluate places`. For lite2 and lite0."""
    masks: Masking = "no"
    """MCLIP-I and MDINO on cut-outs: by x.mask.png beside every picture and photo (given), or found."""
    detector: str = GROUNDING_DINO
    """Finds the subject by its class, for --masks found: Grounding DINO, a folder or a Hub id."""
    segmenter: str = SAM
    """Segments what the detector found: SAM, a folder or a Hub id."""
    average: Averaging = "pairs"
    """Over all pairs of picture and photo (JeDi's), or by subject first (UNO's)."""
    cache: str | None = None
    """Folder where features are kept; OUT/features if not given."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute, in float32 everywhere."""


def run(arguments: list[str]) -> None:
    """Check the folder, score, write. Raises JeDiError."""
    given = tyro.cli(ScoreOptions, args=arguments, prog="jedi evaluate score")
    check(given)
    show_notices()
    wanted = judging.open_set(
        given.protocol,
        given.data,
        given.references,
        given.inputs,
        given.samples,
        given.subject,
        given.seed,
    )
    if given.plan:
        make_folder(Path(given.plan).parent)
        write_file(given.plan, json_bytes(wanted.plan(), indent=1))
        print(f"{len(wanted.cases)} pictures are listed in {given.plan}")
        return
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.evaluation.scoring import Scorer

    found = {name: find_pictures(folder, wanted) for name, folder in named(given.pictures).items()}
    assert given.out is not None
    out = make_folder(given.out)
    device = str(devices.pick_device(given.device))
    encoders = given.encoder or ("pretrained",)
    scorer = Scorer(
        wanted,
        judging.load_encoders(encoders, given.clip, given.dino, device, given.places),
        make_folder(given.cache or out / "features"),
        given.average,
        given.masks,
        judging.load_finder(given.masks, encoders, device, given.detector, given.segmenter),
    )
    results = scorer.score(found)
    files = write_results(out, results, asdict(given))
    print_scores(results)
    print(f"Report: {files[-1]}")


def check(given: ScoreOptions) -> None:
    """Everything that can be judged without the files. Raises UsageError."""
    limits = {
        "references": (1, judging.MAX_REFERENCES),
        "samples": (1, judging.MAX_SAMPLES),
        "seed": (0, 2**31),
    }
    check_options(given, limits)
    if given.plan:
        return
    if not given.pictures:
        raise UsageError(
            "No pictures are given: name their folder with --pictures, or list them with --plan."
        )
    if not given.out:
        raise UsageError("No folder for the results is given: name one with --out.")
    named(given.pictures)


def named(pictures: tuple[str, ...]) -> dict[str, str]:
    """Return folders by name: NAME=FOLDER, or the folder's own name. Raises UsageError for a name given
    twice.

    What is a folder as it stands, or has a slash before its equals sign, is no NAME=FOLDER.
    """
    found: dict[str, str] = {}
    for each in pictures:
        name, equals, folder = each.partition("=")
        if not equals or os.sep in name or Path(each).is_dir():
            name, folder = Path(each).resolve().name, each
        if name in found:
            raise UsageError(
                f"Two folders of pictures are called {name!r}; tell them apart with NAME=FOLDER."
            )
        found[name] = folder
    return found


def print_scores(results: Results) -> None:
    """Print the tables."""
    from jedi_diffusion.evaluation.outputs import score_tables
    from jedi_diffusion.page.tables import markdown

    print("\n".join(markdown(table) for table in score_tables(results)))
