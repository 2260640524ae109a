"""`jedi photos score`: how well a model puts photographed subjects into new places, without a download."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import tyro

from jedi_diffusion import devices, models
from jedi_diffusion.cli.notices import show_notices
from jedi_diffusion.cli.options import Repeated
from jedi_diffusion.files import make_folder
from jedi_diffusion.limits import check_options
from jedi_diffusion.pictures import save_png

if TYPE_CHECKING:
    from jedi_diffusion.evaluation.encoders import Encoder

ENCODER: Literal["lite2"] = "lite2"
SHEET = "sheet.png"


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
    from jedi_diffusion.evaluation import photo_score
    from jedi_diffusion.evaluation.generate import generate, open_method_folder
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.evaluation.photo_subjects import PLACES, open_photo_subjects
    from jedi_diffusion.evaluation.scoring import Scorer
    from jedi_diffusion.methods.joint import Joint
    from jedi_diffusion.vision.classes import ClassJudge
    from jedi_diffusion.vision.lite import LiteEncoder
    from jedi_diffusion.vision.places import PlaceClassifier, PlaceJudge

    places = given.place or PLACES
    classifier = PlaceClassifier.load(given.places) if given.places else None
    if classifier is not None:
        classifier.check_knows(places)
    wanted = open_photo_subjects(given.folder, places, given.called, given.seed)
    device = devices.pick_device(given.device)
    pipe = models.load_model(given.model, device, devices.pick_dtype(given.dtype, device))
    size = given.size or models.own_size(pipe)
    # Judges that are missing or do not fit show before hours of work, not after.
    encoder = LiteEncoder(ENCODER, str(device), side=size)
    judges: list[Encoder] = [encoder, ClassJudge(encoder)]
    if classifier is not None:
        judges.append(PlaceJudge(classifier, encoder))
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
    generate(wanted, Joint(pipe, settings), folder, batch=len(places))
    made = find_pictures(folder, wanted)
    scorer = Scorer(wanted, judges, make_folder(out / "features"), "subjects")
    results = scorer.score({photo_score.MODEL: made, **photo_score.swapped(made, wanted)})
    psnr = photo_score.psnr_of(pipe, wanted, size)
    described = {
        **asdict(given),
        "size": size,
        "fingerprint": record["model"],
        "place_classifier": None if classifier is None else classifier.record,
        "autoencoder_psnr": psnr,
    }
    files = write_results(out, results, described)
    save_png(out / SHEET, photo_score.sheet(made, results, ENCODER, size))
    print(photo_score.table(results, ENCODER))
    print(f"The autoencoder's PSNR on the photos: {psnr:.1f} dB on average")
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
