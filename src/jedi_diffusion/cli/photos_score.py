"""`jedi photos score`: how well a model puts photographed subjects into new places, without a download."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from jedi_diffusion.cli import models
from jedi_diffusion.cli.notices import show_notices
from jedi_diffusion.cli.options import Repeated
from jedi_diffusion.errors import UsageError
from jedi_diffusion.files import make_folder
from jedi_diffusion.limits import check_options
from jedi_diffusion.pictures import contact_sheet, fit_square, open_picture, save_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image

    from jedi_diffusion.evaluation.cases import Case, EvaluationSet
    from jedi_diffusion.evaluation.encoders import Encoder
    from jedi_diffusion.evaluation.scoring import Results
    from jedi_diffusion.personalizer import Personalizer

ENCODER: Literal["lite2"] = "lite2"
SHEET, METHOD = "sheet.png", "model"
SWAPPED = "its pictures of another subject"


@dataclass(frozen=True)
class PhotosOptions:
    """Score a model on photographed subjects: one photo of each, to be shown in a few places.

    identity: likeness to the subject's other photos by EfficientNet-Lite2; 0 is another subject of its class
    (of another where it has none), 1 another photo of the subject. place: the probability of the right place.
    copies: the share of pictures nearer to the photo than photos of one subject ever are. 95% intervals, over
    subjects. Goes on where it stopped. Needs pip install 'jedi-diffusion[imagenet]'.
    """

    folder: tyro.conf.Positional[str]
    """A clone of github.com/google/dreambooth, or a folder with a subfolder of photos for each subject."""
    out: str
    """Folder for the pictures, sheet.png, scores.json and report.html."""
    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id."""
    place: Repeated = ()
    """Where to show the subjects: "in the snow". May be given several times; three places if not given."""
    places: str | None = None
    """What judges the place: a file of `jedi evaluate places`. Without one the place is not scored."""
    called: str | None = None
    """What every subject is called in prompts, such as toy; its own class if not given."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 3.0
    """Scale of eq. 3."""
    coupling: Literal["joint", "cached"] | None = None
    """The paper's form, or references computed once and reused; the model's own if not given."""
    temperature: float | None = None
    """0 to 1: how much noise a picture starts from; the model's own if not given."""
    size: int | None = None
    """Side of the pictures in pixels, to which photos are brought too; the model's own if not given."""
    seed: int = 0
    """Draws the photo that is given, where the data fix none."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; float32, on CUDA bfloat16, if not given."""


def run(arguments: list[str]) -> None:
    """Check the folder, make the pictures that are missing, score, write. Raises JeDiError."""
    given = tyro.cli(PhotosOptions, args=arguments, prog="jedi photos score")
    check(given)
    show_notices()
    models.check_model_name(given.model)
    from jedi_diffusion.evaluation.generate import generate, open_method_folder
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.evaluation.photo_subjects import PLACES, open_photo_subjects
    from jedi_diffusion.evaluation.scoring import Scorer
    from jedi_diffusion.vision.classes import ClassJudge
    from jedi_diffusion.vision.lite import LiteEncoder
    from jedi_diffusion.vision.places import PlaceClassifier, PlaceJudge

    places = given.place or PLACES
    classifier = PlaceClassifier.load(given.places) if given.places else None
    if classifier is not None:
        check_places(places, classifier.places)
    wanted = open_photo_subjects(given.folder, places, given.called, given.seed)
    device = models.pick_device(given.device)
    LiteEncoder(ENCODER, str(device))  # what is missing shows before hours of work, not after
    pipe = models.load_model(given.model, device, models.pick_dtype(given.dtype, device))
    size = given.size or models.own_size(pipe)
    settings = {
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance,
        "coupling": given.coupling,
        "temperature": given.temperature,
        "height": size,
        "width": size,
    }
    record = {"model": models.fingerprint(pipe), "settings": settings, "set": wanted.settings}
    out = make_folder(given.out)
    folder = open_method_folder(out / "pictures", record)
    generate(wanted, personalizer(pipe, settings, given.called), folder, batch=len(places))
    made = find_pictures(folder, wanted)
    encoder = LiteEncoder(ENCODER, str(device), side=size)
    judges: list[Encoder] = [encoder, ClassJudge(encoder)]
    if classifier is not None:
        judges.append(PlaceJudge(classifier, encoder))
    scorer = Scorer(wanted, judges, make_folder(out / "features"), "subjects")
    results = scorer.score({METHOD: made, **swapped(made, wanted)})
    described = {**asdict(given), "size": size, "fingerprint": record["model"]}
    described["place_classifier"] = None if classifier is None else classifier.record
    described["autoencoder_psnr"] = psnr_of(pipe, wanted, size)
    files = write_results(out, results, described)
    save_png(out / SHEET, sheet(made, results, size))
    print(table(results))
    print(f"The autoencoder's PSNR on the photos: {described['autoencoder_psnr']:.1f} dB on average")
    print(f"Pictures:  {out / SHEET}\nReport:    {files[-1]}")


def check(given: PhotosOptions) -> None:
    """Raises UsageError for numbers out of range."""
    limits = {
        "steps": (1, 1000),
        "guidance": (0.0, 100.0),
        "temperature": (0.0, 1.0),
        "seed": (0, 2**31),
        "size": (16, 1024),
    }
    check_options(given, limits)


def check_places(places: Sequence[str], known: Sequence[str]) -> None:
    """Raises UsageError for a place that the classifier does not know."""
    for place in places:
        if place not in known:
            raise UsageError(f"The place classifier does not know {place!r}; it knows {', '.join(known)}.")


def personalizer(pipe: Any, settings: dict[str, Any], called: str | None) -> Personalizer:
    """The model, whose references go by what the prompts call the subject."""
    from jedi_diffusion.methods.joint import Joint

    joint = Joint(pipe, settings)
    if called is None:
        return joint

    def call(
        references: Sequence[Image.Image],
        reference_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        return joint(references, [f"a {called}"] * len(reference_prompts), prompts, seeds)

    return call


def swapped(made: Mapping[Case, Path], wanted: EvaluationSet) -> dict[str, dict[Case, Path]]:
    """Each subject's cases answered by the model's pictures of its rival: what the place alone looks like.

    Empty where there is one subject only.
    """
    from jedi_diffusion.evaluation.cases import Case
    from jedi_diffusion.evaluation.scoring import rival

    found = {}
    for case in made:
        other = rival(case.subject, wanted.subjects)
        if other is None:
            return {}
        found[case] = made[Case(other, wanted.inputs[other.name][0], case.prompt, case.sample)]
    return {SWAPPED: found}


def psnr_of(pipe: Any, wanted: EvaluationSet, size: int) -> float:
    """The mean PSNR in dB with which the model's autoencoder gives the input photos back."""
    from jedi_diffusion.evaluation.photo_subjects import inputs_of
    from jedi_diffusion.model.reconstruction import reconstruct

    photos = [fit_square(open_picture(photo.path), size) for photo in inputs_of(wanted)]
    return round(float(reconstruct(pipe.vae, photos)[1].mean()), 2)


def table(results: Results) -> str:
    """identity, place, class and copies of the model and of the known answers."""
    from jedi_diffusion.evaluation.outputs import shown
    from jedi_diffusion.evaluation.scale import scaled_columns
    from jedi_diffusion.evaluation.scoring import COPIES

    scaled = scaled_columns(results)
    width = max(len(row.name) for row in results.rows) + 2
    texts = [name for name in ("place", "class") if name in results.columns]
    lines = [f"{'':<{width}}" + "".join(f"{name:<28}" for name in ("identity", *texts, "copies"))]
    for row in results.rows:
        cells = [
            shown(scaled[row.name][ENCODER]),
            *(shown(row.scores[name]) for name in texts),
            shown(row.scores[COPIES], percent=True),
        ]
        lines.append(f"{row.name:<{width}}" + "".join(f"{cell:<28}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def sheet(made: Mapping[Case, Path], results: Results, size: int) -> Image.Image:
    """A row for each subject: the photo that was given, and the pictures with their cosine to the others."""
    from jedi_diffusion.evaluation.scoring import column

    (scored,) = (row for row in results.rows if row.name == METHOD)
    rows: dict[str, list[tuple[Image.Image, str] | None]] = {}
    title = column(ENCODER, "others")
    for number, answer in enumerate(scored.answers):
        case = answer.case
        photo = case.subject.photos[case.inputs[0]].path
        row = rows.setdefault(
            case.subject.name, [(fit_square(open_picture(photo), size), f"{case.subject.name}: the photo")]
        )
        row.append((open_picture(made[case]), f"{case.text}: {scored.values[title][number]:.2f}"))
    return contact_sheet(
        list(rows.values()), cell=size, title="Photos, and new pictures with their likeness to other photos"
    )
