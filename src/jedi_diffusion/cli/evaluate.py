"""`jedi evaluate`: generates with the methods of a recipe, scores them, and writes the report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from jedi_diffusion import devices, models
from jedi_diffusion.cli.evaluate_score import print_scores
from jedi_diffusion.cli.notices import show_notices
from jedi_diffusion.errors import UsageError
from jedi_diffusion.evaluation import judging
from jedi_diffusion.files import make_folder, write_file
from jedi_diffusion.recipes import find_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from jedi_diffusion.evaluation.cases import EvaluationSet
    from jedi_diffusion.evaluation.recipe import EvaluationRecipe, Method, Sampling
    from jedi_diffusion.evaluation.scoring import Scorer
    from jedi_diffusion.personalizer import Personalizer

MOVED = (
    "The paper's tables have left the package; in a checkout of the repository, "
    "`python -m experiments.paper_tables {}` makes them."
)


@dataclass(frozen=True)
class EvaluateOptions:
    """Compare methods by a recipe: pictures of every method for every case, scores, and one page.

    Started again with the same folder, it goes on where it stopped; each picture is made once. Writes
    scores.json, scores.csv, scores.md, scores.tex and report.html. To score pictures that exist, see
    `jedi evaluate score --help`.
    """

    recipe: tyro.conf.Positional[str]
    """A YAML file, or the name of a recipe that comes with the package (`jedi recipes`)."""
    out: str
    """Folder for pictures, features and results."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change a key of the recipe: set.subjects=5. May be given several times."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    dry_run: bool = False
    """Print the resolved recipe and the number of pictures, then stop."""


def run(arguments: list[str]) -> None:
    """Generate what is missing, score everything, write. Raises JeDiError."""
    given = tyro.cli(EvaluateOptions, args=arguments, prog="jedi evaluate")
    show_notices()
    from jedi_diffusion.evaluation.layout import find_pictures
    from jedi_diffusion.evaluation.outputs import write_results
    from jedi_diffusion.evaluation.recipe import EvaluationRecipe
    from jedi_diffusion.train.config import checked, for_device, read_yaml

    device = devices.pick_device(given.device)
    if given.recipe in ("paper_tables", "paper_tables_quick"):  # shipped under these names once
        raise UsageError(MOVED.format("quick" if given.recipe.endswith("quick") else "full"))
    path = find_recipe(given.recipe, "evaluate")
    raw = for_device(read_yaml(path, given.set), "cuda" if device.type == "cuda" else "cpu")
    if "tables" in raw:
        raise UsageError(MOVED.format(path))
    recipe = checked(EvaluationRecipe, raw, path)
    resolved = json.dumps(recipe.model_dump(mode="json"), indent=2)
    print(resolved)
    check(recipe)
    if given.dry_run:
        return
    out = make_folder(given.out)
    write_file(out / "recipe.json", resolved.encode())
    wanted = open_set(recipe, out, str(device))
    print(f"{len(wanted.cases)} pictures for each of {len(recipe.methods)} methods")
    scorer = open_scorer(recipe, wanted, out, str(device))
    for method in recipe.methods:
        generate_with(method, recipe, wanted, out, device)
    found = {method.name: find_pictures(pictures_of(method, out), wanted) for method in recipe.methods}
    results = scorer.score(found)
    files = write_results(out, results, recipe.model_dump(mode="json"))
    print_scores(results)
    print(f"Report: {files[-1]}")


def check(recipe: EvaluationRecipe) -> None:
    """What can be judged before anything is rendered or loaded. Raises UsageError, ModelError."""
    from jedi_diffusion.cli import finetuning
    from jedi_diffusion.evaluation.recipe import CopyMethod, FinetunedMethod, IPAdapterMethod, OracleMethod
    from jedi_diffusion.methods.ip_adapter import check_adapter

    for method in recipe.methods:
        if not isinstance(method, CopyMethod | OracleMethod):
            models.check_model_name(method.model)
        if isinstance(method, FinetunedMethod):
            finetuning.tuning_of(method)
        if isinstance(method, IPAdapterMethod):
            check_adapter(method.weights)


def open_set(recipe: EvaluationRecipe, out: Path, device: str) -> EvaluationSet:
    """The evaluation set; the toybox's is rendered into OUT/data first."""
    part = recipe.set
    if part.kind == "toybox":
        from jedi_diffusion.evaluation.own_subjects import open_own_subjects
        from jedi_toybox.evaluation_data import write_evaluation_data

        name = f"{part.classes}-{part.subjects}-{part.prompts}-{part.size}-{part.seed}"
        data = write_evaluation_data(
            out / "data" / name, part.subjects, part.prompts, part.size, part.classes, part.seed, device
        )
        return open_own_subjects(data, part.references, part.inputs, part.samples, "toybox", part.seed)
    subjects = part.subjects if part.kind == "dreambench" else ()
    return judging.open_set(
        part.kind, part.data, part.references, part.inputs, part.samples, subjects, part.seed
    )


def generate_with(
    method: Method, recipe: EvaluationRecipe, wanted: EvaluationSet, out: Path, device: torch.device
) -> None:
    """The method's pictures that are missing; its model is loaded only where there are any."""
    from jedi_diffusion.cli import finetuning
    from jedi_diffusion.evaluation.generate import generate, open_method_folder, pending
    from jedi_diffusion.evaluation.recipe import FinetunedMethod

    record = {"method": method.model_dump(mode="json"), "set": wanted.settings}
    folder = open_method_folder(pictures_of(method, out), record)
    if pending(wanted, folder):
        generate(wanted, personalizer(method, wanted, device, out), folder, recipe.batch)
    if isinstance(method, FinetunedMethod):
        print(finetuning.describe(method.name, fits_of(method, out)))


def pictures_of(method: Method, out: Path) -> Path:
    return out / "pictures" / method.name


def fits_of(method: Method, out: Path) -> Path:
    return out / "fits" / method.name


def personalizer(method: Method, wanted: EvaluationSet, device: torch.device, out: Path) -> Personalizer:
    """The method, ready to make pictures; what it fits goes to OUT/fits. Raises ModelError, UsageError."""
    match method.kind:
        case "copy":
            from jedi_diffusion.methods.copy_input import CopyInput

            return CopyInput()
        case "oracle":
            return _oracle(wanted)
        case "text_only":
            from jedi_diffusion.methods.text_only import TextOnly

            return TextOnly(*_loaded(method, device))
        case "training_free":
            from jedi_diffusion.methods.training_free import TrainingFreeJoint

            pipe, settings = _loaded(method, device)
            return TrainingFreeJoint(pipe, settings | {"null_set": method.null_set})
        case "ip_adapter":
            from jedi_diffusion.methods.ip_adapter import IPAdapter, load_ip_adapter

            pipe = _through_diffusers(
                lambda dtype: load_ip_adapter(
                    method.model, method.weights, method.image_encoder, method.scale, dtype
                ),
                method,
                device,
            )
            return IPAdapter(pipe, _call(method, method.size))
        case "blip_diffusion":
            from jedi_diffusion.methods.blip_diffusion import BlipDiffusion, load_blip_diffusion

            pipe = _through_diffusers(
                lambda dtype: load_blip_diffusion(method.model, method.vocabulary, dtype), method, device
            )
            return BlipDiffusion(pipe, _call(method, method.size))
        case "dreambooth" | "textual_inversion" | "custom_diffusion" | "svdiff" | "diffusekrona":
            from jedi_diffusion.cli import finetuning

            return finetuning.finetuned(method, *_loaded(method, device), fits_of(method, out))
        case "model":
            from jedi_diffusion.methods.joint import Joint

            pipe, settings = _loaded(method, device)
            settings |= {
                "guidance_mode": method.guidance_mode,
                "image_guidance_scale": method.image_guidance,
                "coupling": method.coupling,
                "null_set": method.null_set,
            }
            return Joint(pipe, settings)


def _loaded(method: Sampling, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The pipeline of a method, and the settings that all such methods have."""
    from jedi_diffusion.evaluation.recipe import FinetunedMethod

    dtype = "float32" if isinstance(method, FinetunedMethod) else method.dtype
    pipe = models.load_model(method.model, device, devices.pick_dtype(dtype, device))
    return pipe, _call(method, method.size or models.own_size(pipe))


def _through_diffusers(load: Callable[[torch.dtype], Any], method: Sampling, device: torch.device) -> Any:
    """A pipeline that is not a joint one, in the method's number format on its device."""
    models.quiet_libraries()
    pipe = load(devices.pick_dtype(method.dtype, device)).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _call(method: Sampling, size: int) -> dict[str, Any]:
    """Arguments that every pipeline's call takes."""
    return {
        "num_inference_steps": method.steps,
        "guidance_scale": method.guidance,
        "height": size,
        "width": size,
    }


def _oracle(wanted: EvaluationSet) -> Personalizer:
    from jedi_diffusion.evaluation.generate import open_references
    from jedi_diffusion.methods.oracle import Oracle, oracle_key
    from jedi_diffusion.pictures import open_picture

    if not all(subject.truths for subject in wanted.subjects):
        raise UsageError(
            "The method oracle needs a true picture for every prompt; the oracle of photos stands in every "
            "report without it."
        )
    truths = {}
    for group in wanted.groups():
        references = open_references(group[0])
        for case in group:
            picture = open_picture(case.subject.truths[case.prompt].path)
            truths[oracle_key(references, case.text)] = [picture]
    return Oracle(truths)


def open_scorer(recipe: EvaluationRecipe, wanted: EvaluationSet, out: Path, device: str) -> Scorer:
    """The scorer, after it has read the true photos and the prompts: what is wrong with them or with the
    encoders shows before hours of work, not after.
    """
    from jedi_diffusion.evaluation.recipe import LiteSection, PretrainedSection
    from jedi_diffusion.evaluation.scoring import Scorer

    kinds = [each.kind for each in recipe.encoders]
    sources = next(
        (each for each in recipe.encoders if isinstance(each, PretrainedSection)),
        PretrainedSection(kind="pretrained"),
    )
    places = next((each.places for each in recipe.encoders if isinstance(each, LiteSection)), None)
    scorer = Scorer(
        wanted,
        judging.load_encoders(kinds, sources.clip, sources.dino, device, places),
        out / "features",
        recipe.average,
        recipe.masks,
        judging.load_finder(recipe.masks, kinds, device, sources.detector, sources.segmenter),
    )
    scorer.read_set()
    return scorer
