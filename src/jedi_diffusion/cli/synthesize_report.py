"""`jedi synthesize report`: what a run made and how good it is, as one page and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion.cli import show_notices
from jedi_diffusion.evaluation import judging
from jedi_diffusion.options import check_options

if TYPE_CHECKING:
    from jedi_diffusion.evaluation.judging import EncodersName
    from jedi_diffusion.synthesis.recipe import SynthesisRecipe
    from jedi_diffusion.synthesis.report.facts import PhotoSubject
    from jedi_diffusion.synthesis.report.similarity import PictureEncoder

MAX_SETS = 10_000  # their pictures are compared with each other
STRANGERS = (
    "The toybox's encoder knows pictures of the toybox alone: its numbers of real photos say nothing. Give "
    "real encoders (--encoders pretrained or lite2) to compare with photos."
)


@dataclass(frozen=True)
class ReportOptions:
    """Say what a run of `jedi synthesize` made and how good it is, finished or not.

    Writes report.html, which opens offline, and report.json: counts and reasons of every stage, Table 8,
    distributions, near duplicates, contact sheets, and what other affinity thresholds would have joined.
    """

    folder: tyro.conf.Positional[str]
    """Folder of the run."""
    photos: str | None = None
    """A clone of github.com/google/dreambooth, to be measured beside."""
    out: str | None = None
    """Folder for the report; that of the run if not given."""
    encoders: Literal["auto", "toybox", "pretrained", "lite2", "lite0", "none"] = "auto"
    """CLIP and DINO (pretrained), EfficientNet-Lite (no download), the toybox's (auto, where the run's own
    are), or none at all."""
    clip: str = "openai/clip-vit-base-patch32"
    """CLIP ViT-B/32: a transformers folder of safetensors, or a Hub id."""
    dino: str = "facebook/dino-vits16"
    """DINO ViT-S/16: a transformers folder of safetensors, or a Hub id."""
    sets: int = 1000
    """Sets whose pictures are read, drawn at random; all are counted."""
    seed: int = 0
    """Draws the sets and the collages that are shown."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where encoders compute."""


def run(arguments: list[str]) -> None:
    """Read the run, measure, write; print the tables. Raises JeDiError."""
    given = tyro.cli(ReportOptions, args=arguments, prog="jedi synthesize report")
    check_options(given, {"sets": (1, MAX_SETS), "seed": (0, 2**62)})
    show_notices()
    from jedi_diffusion.files import make_folder
    from jedi_diffusion.page.tables import markdown
    from jedi_diffusion.synthesis.outputs import OutputFolder
    from jedi_diffusion.synthesis.report.facts import check_shards, read_facts
    from jedi_diffusion.synthesis.report.page import summary_tables, write_report
    from jedi_diffusion.synthesis.report.sheets import Chosen, galleries

    output = OutputFolder.open(given.folder)
    recipe = output.recipe
    check_shards(output)  # before encoders are loaded
    out = make_folder(given.out or given.folder)
    photos = read_photos(given.photos) if given.photos else []
    chosen = Chosen(given.seed)
    encoders = load_encoders(given, recipe)
    facts = read_facts(given.folder, encoders, photos, given.sets, given.seed, chosen.visit)
    remarks = [STRANGERS] if photos and encoders_of(given, recipe) == "toybox" else []
    page, record = write_report(facts, galleries(facts, chosen), out, remarks)
    print("\n".join([markdown(table) for table in summary_tables(facts)] + remarks))
    if not facts.whole:
        print(f"The run is not finished: {len(facts.markers)} of {facts.planned} shards are whole.\n")
    print(f"Report: {page}\nNumbers: {record}")


def read_photos(folder: str) -> list[PhotoSubject]:
    """Return the subjects of DreamBench. Raises DataError."""
    from jedi_diffusion.evaluation.dreambench import open_dreambench
    from jedi_diffusion.synthesis.report.facts import PhotoSubject

    return [
        PhotoSubject(each.name, each.noun, [photo.path for photo in each.photos])
        for each in open_dreambench(Path(folder)).subjects
    ]


def encoders_of(given: ReportOptions, recipe: SynthesisRecipe) -> EncodersName | Literal["none"]:
    """Return the encoders that are asked for, by their names; "auto" follows the run's own."""
    if given.encoders != "auto":
        return given.encoders
    return "toybox" if recipe.models.embedder.kind == "toybox" else "pretrained"


def load_encoders(given: ReportOptions, recipe: SynthesisRecipe) -> list[PictureEncoder]:
    """Return the encoders that are asked for. Raises ModelError, UsageError."""
    name = encoders_of(given, recipe)
    if name == "none":
        return []
    from jedi_diffusion.devices import pick_device

    device = str(pick_device(given.device))
    found = judging.load_encoders((name,), given.clip, given.dino, device)
    return [each for each in found if each.image_column]
