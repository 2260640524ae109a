"""From the name of a local model to a folder whose files are checked, and what identifies its content.

Only safetensors are fetched or read, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Collection, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import RevisionResolutionError, StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError

from jedi_diffusion.errors import ModelError
from jedi_diffusion.loading import checked_folder, load_errors
from jedi_diffusion.synthesis.adapters.settings import LocalSettings, PipelineSettings
from jedi_diffusion.weights import check_weights_file, read_json, weight_files

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
SMALL_FILES = (".json", ".txt", ".model", ".jinja")
"""Endings of what is read beside weights: configurations, vocabularies, chat templates."""
STRAY_ERRORS = (
    *(RuntimeError, TypeError, LookupError, AttributeError),
    *(SafetensorError, StrictDataclassError, RevisionResolutionError, TemplateError),
)
"""What the libraries raise about broken files, beside OSError and ValueError."""
LEFT_OUT = ("safety_checker",)
"""Components that are not loaded: the checker turns pictures black, which no later stage would notice."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that may be loaded. identity: class and content, the same wherever the folder lies."""

    folder: Path
    identity: str


def open_transformer(settings: LocalSettings, part: str, types: Collection[str]) -> Checkpoint:
    """The folder of a transformers model whose type is one of `types`, fetched where needed.

    Raises ModelError if it is missing, not safetensors, damaged, or of another type.
    """
    with explained(settings.model):
        config = _index(settings, "config.json", part)
        kind = config.get("model_type")
        if kind not in types:
            wanted = next(iter(types)) if len(types) == 1 else "causal language model"
            raise ModelError(f"{settings.model} is of type {kind}, but the {part} needs a {wanted}.")
        folder = Path(settings.model)
        if not folder.is_dir():
            patterns = ["*.safetensors", "*.safetensors.index.json", *(f"*{end}" for end in SMALL_FILES)]
            folder = Path(
                snapshot_download(settings.model, revision=settings.revision, allow_patterns=patterns)
            )
        weights = weight_files(folder, "model", None)
        for file in weights:
            check_weights_file(file)
        name = (config.get("architectures") or [kind])[0]
        return Checkpoint(folder, f"{name} {_content(folder, [*weights, *_small_files(folder)])}")


def open_pipeline(
    settings: PipelineSettings, part: str, takes: Set[str], refuses: Collection[str]
) -> tuple[Checkpoint, Any]:
    """The folder of a diffusers pipeline and its class, which must take certain inputs and not take others.

    Raises ModelError if it is missing, not safetensors, damaged, or of a class that does not fit the part.
    """
    with explained(settings.model):
        index = _index(settings, "model_index.json", part)
        pipeline_class = _pipeline_class(index, settings.model)
        inputs = inspect.signature(pipeline_class.__call__).parameters.keys()
        if not takes <= inputs or not inputs.isdisjoint(refuses):
            raise ModelError(
                f"{settings.model} is a {pipeline_class.__name__}, which cannot be the {part}: it must take "
                f"{', '.join(sorted(takes))}" + (f" and no {' or '.join(refuses)}." if refuses else ".")
            )
        hub = {"revision": settings.revision, "variant": settings.variant}
        found, _ = checked_folder(settings.model, pipeline_class.download, hub)
        folder = Path(found)
        files = [folder / "model_index.json"]
        for component in _components(index, settings.model):
            files += _checked_component(folder / component, settings.variant)
        return Checkpoint(folder, f"{pipeline_class.__name__} {_content(folder, files)}"), pipeline_class


@contextmanager
def explained(model: str) -> Iterator[None]:
    """Turns what the libraries raise about a model into a ModelError of one sentence that names it."""
    try:
        with load_errors(model):
            yield
    except ImportError as error:
        raise ModelError(
            f"The model {model} needs a package that is not installed: {_first_line(error)}"
        ) from error
    except STRAY_ERRORS as error:
        raise ModelError(
            f"The model {model} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error


def fingerprint(identity: str, settings: LocalSettings, dtype: object) -> str:
    """What a record says of the model: class and content, number format, and the settings that decide."""
    decide = {"dtype": str(dtype).removeprefix("torch."), **settings.deciding()}
    return f"{identity} {json.dumps(decide, sort_keys=True)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def _index(settings: LocalSettings, file: str, part: str) -> dict[str, Any]:
    """What `file` in a local folder or on the Hub says; it is the file that tells what a model is."""
    folder = Path(settings.model)
    if folder.is_file():
        raise ModelError(f"{folder} is a file; a model is a folder as diffusers or transformers save it.")
    if not folder.is_dir():
        if not HUB_ID.fullmatch(settings.model):
            raise ModelError(f"There is no model folder {settings.model}.")
        try:
            found = hf_hub_download(settings.model, file, revision=settings.revision)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"There is no folder {settings.model}, and the Hub does not give its {file}: "
                f"{_first_line(error)}"
            ) from error
        return read_json(Path(found))
    if not (folder / file).is_file():
        library = "diffusers pipeline" if file == "model_index.json" else "transformers model"
        raise ModelError(f"{folder} has no {file}; the {part} needs the folder of a {library}.")
    return read_json(folder / file)


def _pipeline_class(index: dict[str, Any], model: str) -> Any:
    name = index.get("_class_name")
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise ModelError(f"{model} asks for the pipeline {name}, which diffusers does not have.")
    return found


def _components(index: dict[str, Any], model: str) -> Iterator[str]:
    """Names of the components that are loaded, after a check that none brings code of its own."""
    for name, entry in index.items():
        if name.startswith("_") or name in LEFT_OUT or not isinstance(entry, list) or not any(entry):
            continue
        library = entry[0]
        if library not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, str(library)):
            raise ModelError(
                f"{model} wants {name} from {library}; only diffusers and transformers are used."
            )
        yield name


def _checked_component(folder: Path, variant: str | None) -> list[Path]:
    """All files of a component that are read. Raises ModelError for weights that are not safetensors."""
    if not (folder / "config.json").is_file():  # a tokenizer or a scheduler: no weights
        return _small_files(folder)
    diffusers_own = "_class_name" in read_json(folder / "config.json")
    weights = weight_files(folder, "diffusion_pytorch_model" if diffusers_own else "model", variant)
    for file in weights:
        check_weights_file(file)
    return [*weights, *_small_files(folder)]


def _small_files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*") if file.suffix in SMALL_FILES and file.is_file()]


def _content(folder: Path, files: Sequence[Path]) -> str:
    """ "owner/name@commit" of a snapshot that the Hub gave, else a hash of all files with their names."""
    repository, snapshots, commit = ("", "", *folder.absolute().parts)[-3:]
    if (
        snapshots == "snapshots"
        and repository.startswith("models--")
        and re.fullmatch("[0-9a-f]{40}", commit)
    ):
        return f"{repository.removeprefix('models--').replace('--', '/')}@{commit}"
    whole = hashlib.blake2b(digest_size=16)
    ordered = sorted(set(files))
    with ThreadPoolExecutor(4) as pool:
        for file, digest in zip(ordered, pool.map(_digest, ordered), strict=True):
            whole.update(json.dumps([file.relative_to(folder).as_posix(), digest]).encode())
    return f"blake2b:{whole.hexdigest()}"


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()
