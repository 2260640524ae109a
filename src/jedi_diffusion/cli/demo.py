"""`jedi demo`: the bundled model on toybox subjects that it has never seen, references beside new scenes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import tyro
from tqdm import tqdm

from jedi_diffusion.cli import models, naming
from jedi_diffusion.cli.notices import show_notices
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import make_folder
from jedi_diffusion.pictures import contact_sheet, save_png

if TYPE_CHECKING:
    from PIL import Image

    from jedi_diffusion.toybox.world import PictureSpec

SHEET = "demo.png"


@dataclass(frozen=True)
class DemoOptions:
    """The bundled model on subjects it has never seen: reference pictures beside what the prompts ask for.

    Every row of demo.png is one subject. Existing files are kept: a run whose names are taken adds -2, -3 ...
    """

    out: str = "out/demo"
    """Folder for the results."""
    subjects: int = 4
    """Subjects, each a row."""
    references: int = 1
    """Reference pictures of each subject."""
    prompts: int = 3
    """New pictures of each subject."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 3.0
    """Scale of eq. 3."""
    coupling: Literal["joint", "cached"] | None = None
    """The paper's form, or references computed once and reused; the model's own if not given."""
    seed: int = 0
    """Other seeds show other subjects."""
    model: str = "toybox"
    """"toybox" (bundled), or the folder of another model trained on the toybox."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; float32, on CUDA bfloat16, if not given."""
    overwrite: bool = False
    """Replace files of earlier runs."""


@dataclass(frozen=True)
class Row:
    """A subject: its rendered references, and the pictures that are asked for."""

    references: list[PictureSpec]
    targets: list[PictureSpec]


def run(arguments: list[str]) -> None:
    """Render references, make pictures, write them and the sheet. Raises JeDiError."""
    given = tyro.cli(DemoOptions, args=arguments, prog="jedi demo")
    check(given)
    show_notices()
    models.check_model_name(given.model)
    folder = make_folder(given.out)
    rows = [subject_row(given, number) for number in range(given.subjects)]
    files = [file_names(number, row) for number, row in enumerate(rows, start=1)]
    taken = [SHEET, *(name for names in files for name in names)]
    suffix = "" if given.overwrite else naming.free_suffix(folder, taken)
    device = models.pick_device(given.device)
    pipe = models.load_model(given.model, device, models.pick_dtype(given.dtype, device))
    cells = []
    for number, row in enumerate(tqdm(rows, unit="subject", file=sys.stderr)):
        pictures = make(given, pipe, row, given.seed + number)
        for name, picture in zip(files[number], pictures, strict=True):
            save_png(folder / naming.with_suffix(name, suffix), picture)
        labels = [f"reference: {spec.caption}" for spec in row.references]
        cells.append(list(zip(pictures, labels + [spec.caption for spec in row.targets], strict=True)))
    sheet = folder / naming.with_suffix(SHEET, suffix)
    save_png(sheet, contact_sheet(cells, title="References, and new pictures of the same subjects"))
    print(f"{sum(map(len, files))} pictures are in {folder}")
    print(f"All of them side by side: {sheet}")


def check(given: DemoOptions) -> None:
    """Raises UsageError for numbers out of range."""
    limits = {
        "subjects": (1, 100),
        "references": (1, 8),
        "prompts": (1, 20),
        "steps": (1, 1000),
        "guidance": (0.0, 100.0),
        "seed": (0, 2**31),
    }
    for name, (low, high) in limits.items():
        if not low <= getattr(given, name) <= high:  # also false for NaN
            raise UsageError(f"--{name} is {getattr(given, name)}, but must lie between {low} and {high}.")


def subject_row(given: DemoOptions, number: int) -> Row:
    """Subject `number`: plain references, then pictures in other scenes, the last one in a style too."""
    from jedi_diffusion.toybox import world

    subject = world.sample_subject(given.seed * 1000 + number, split="held_out")
    references = [world.sample_picture(subject, k, style="", attribute="") for k in range(given.references)]
    used = {spec.scene for spec in references}
    free = [scene for scene in world.SCENES if scene not in used]
    targets = []
    for k in range(given.prompts):
        scene = free[(subject.seed * 7 + k * 5 + number) % len(free)]
        is_styled = k == given.prompts - 1 and k > 0
        style = world.STYLES[subject.seed % len(world.STYLES)] if is_styled else ""
        targets.append(world.sample_picture(subject, given.references + k, scene, style, attribute=""))
    return Row(references, targets)


def file_names(number: int, row: Row) -> list[str]:
    """One name a picture: "1-reference-1.png", "1-a-robot-on-the-beach.png"."""
    references = [f"{number}-reference-{k}.png" for k in range(1, len(row.references) + 1)]
    return references + [
        f"{number}-{name}.png" for name in naming.slugs([spec.caption for spec in row.targets])
    ]


def make(given: DemoOptions, pipe: Any, row: Row, seed: int) -> list[Image.Image]:
    """The references, then the model's pictures for the targets' captions."""
    import torch
    from PIL import Image

    from jedi_diffusion.toybox import world

    rendered = world.render(row.references, size=models.own_size(pipe)).pictures
    references = [Image.fromarray(each.permute(1, 2, 0).contiguous().numpy()) for each in rendered]
    out = pipe(
        prompt=[spec.caption for spec in row.targets],
        references=references,
        reference_prompts=[spec.caption for spec in row.references],
        num_inference_steps=given.steps,
        guidance_scale=given.guidance,
        coupling=given.coupling,
        generator=[torch.Generator().manual_seed(seed) for _ in row.targets],
    )
    return references + out.images
