"""Models of transformers that run here: checked files, a device, a number format, a fingerprint.

Only safetensors are fetched or read, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import RevisionResolutionError, StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoTokenizer

from jedi_diffusion.devices import memory_errors, pick_device, pick_dtype
from jedi_diffusion.errors import ModelError
from jedi_diffusion.vision.settings import LocalSettings
from jedi_diffusion.weights import check_finite, check_weights_file, load_errors, read_json, weight_files

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
SMALL_FILES = (".json", ".txt", ".model", ".jinja")
"""Endings of what is read beside weights: configurations, vocabularies, chat templates."""
STRAY_ERRORS = (
    *(RuntimeError, TypeError, LookupError, AttributeError),
    *(SafetensorError, StrictDataclassError, RevisionResolutionError, TemplateError),
)
"""What the libraries raise about broken files, beside OSError and ValueError."""


class TransformerModel:
    """A model of transformers on its device, with its weights checked.

    part: what it is for, in messages; types: model types that fit; loader: the class that loads it, with
    `arguments`.
    Raises ModelError where the folder cannot be used, UsageError for a device or format that is not there.
    """

    def __init__(
        self,
        settings: LocalSettings,
        device: str,
        part: str,
        types: Collection[str],
        loader: Any,
        **arguments: Any,
    ) -> None:
        self.model_name = settings.model
        self.device = pick_device(settings.device or device)
        self.dtype = pick_dtype(settings.dtype, self.device, "bfloat16")
        self.offload, self.batch_size = settings.offload, settings.batch_size
        self.checkpoint = open_transformer(settings, part, types)
        self.fingerprint = fingerprint(self.checkpoint.identity, settings, self.dtype)
        with explained(self.model_name), memory_errors(self.model_name, self.device, self.batch_size):
            self.model = load_whole(self.checkpoint, loader, self.dtype, **arguments)
            if not self.offload:
                self.model.to(self.device)

    def tokenizer(self) -> Any:
        """Return the tokenizer beside the weights."""
        with explained(self.model_name):
            return AutoTokenizer.from_pretrained(self.checkpoint.folder, trust_remote_code=False)

    def image_processor(self) -> Any:
        """Return the image processor beside the weights, on Pillow: torchvision is not used."""
        processors: Any = AutoImageProcessor
        with explained(self.model_name):
            return processors.from_pretrained(self.checkpoint.folder, backend="pil", trust_remote_code=False)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the model is used: weights on the device, no gradients, shortage of memory explained."""
        with memory_errors(self.model_name, self.device, self.batch_size), torch.inference_mode():
            if self.offload:
                self.model.to(self.device)
            try:
                yield
            finally:
                if self.offload:
                    self.model.to("cpu")


def load_whole(checkpoint: Checkpoint, loader: Any, dtype: torch.dtype, **arguments: Any) -> Any:
    """Return the model of a checked folder, in evaluation mode.

    Raises ModelError for weights that are missing or of another shape (transformers would draw them at
    random), or not finite.
    """
    auto = {"trust_remote_code": False} if loader.__name__.startswith("Auto") else {}
    model, info = loader.from_pretrained(
        checkpoint.folder,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # what does not fit is named below
        **auto,
        **arguments,
    )
    for fault, found in (
        ("missing", sorted(info["missing_keys"])),
        ("of the wrong shape", sorted(name for name, *_ in info["mismatched_keys"])),
    ):
        if found:
            shown = ", ".join(found[:3]) + (" and more" if len(found) > 3 else "")
            raise ModelError(
                f"{checkpoint.folder} does not fit its model: {len(found)} tensors {fault} ({shown})."
            )
    for name, tensor in model.state_dict().items():
        check_finite(str(checkpoint.folder), name, tensor)
    return model.eval()


@dataclass(frozen=True)
class Checkpoint:
    """A model that may be loaded. identity: class and content, the same wherever the folder lies."""

    folder: Path
    identity: str


def open_transformer(settings: LocalSettings, part: str, types: Collection[str]) -> Checkpoint:
    """Return the folder of a transformers model whose type is one of `types`, fetched where needed.

    Raises ModelError if it is missing, not safetensors, damaged, or of another type.
    """
    with explained(settings.model):
        config = read_index(settings, "config.json", part)
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
        return Checkpoint(folder, f"{name} {content_of(folder, [*weights, *small_files(folder)])}")


@contextmanager
def explained(model: str) -> Iterator[None]:
    """Turn what the libraries raise about a model into a ModelError of one sentence that names it."""
    try:
        with load_errors(model):
            try:
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
    """Return what a record says of the model: class and content, number format, and the settings that
    decide.
    """
    decide = {"dtype": str(dtype).removeprefix("torch."), **settings.deciding()}
    return f"{identity} {json.dumps(decide, sort_keys=True)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]


def read_index(settings: LocalSettings, file: str, part: str) -> dict[str, Any]:
    """Return what `file` in a local folder or on the Hub says; it is the file that tells what a model is."""
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


def small_files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*") if file.suffix in SMALL_FILES and file.is_file()]


def content_of(folder: Path, files: Sequence[Path]) -> str:
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
