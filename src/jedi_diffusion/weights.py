"""From a model's name to a folder whose weights are safetensors, whole, well-shaped and finite.

Nothing is built from weights before they have been checked.

A safetensors file is 8 bytes (the header's length, little-endian), a JSON header of names, types, shapes and
offsets, then the data. The checks read the header alone, and compare every number in it with the size of the
file before they act on it, so a damaged or hostile file costs no memory. Pickles are never opened.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import nn

from jedi_diffusion.errors import JeDiError, ModelError
from jedi_diffusion.parts import Config

COMPONENTS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "text_encoder_3": "model",
}
"""Component folders that hold weights, and the first part of their weight files' names."""

MAX_HEADER_BYTES = 4 * 2**20  # SDXL's largest is 0.3 MB
MAX_CONFIG_BYTES = 2**20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of published models that nothing here loads, so that their folders may be missing."""
GGUF = b"GGUF"
"""What such a file begins with."""
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_SHOWN = 3
_SAMPLED = 16
"""Values of every weight that tell one state of a network from another."""
HUB_SETTINGS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
"""diffusers' settings of a download, of no use once the files are here."""

PathOrId = str | os.PathLike[str]
Shapes = dict[str, tuple[int, ...]]


def checked_folder(
    path_or_id: PathOrId, download: Callable[..., PathOrId], settings: Config
) -> tuple[str, dict[str, object]]:
    """Return the folder of a model, fetched from the Hub where needed, and the settings to load it with.

    download: diffusers' `DiffusionPipeline.download`; settings: keyword arguments of `from_pretrained`. Only
    safetensors are fetched or loaded; components among the settings need no files. Raises ModelError as
    `check_model_folder` does.
    """
    hub = {name: value for name, value in settings.items() if name in HUB_SETTINGS}
    rest = {name: value for name, value in settings.items() if name not in HUB_SETTINGS}
    folder, given = os.fspath(path_or_id), settings.get("variant")
    variant = given if isinstance(given, str) else None
    if not os.path.isdir(folder):
        folder = os.fspath(download(folder, use_safetensors=True, variant=variant, **hub))
    check_model_folder(folder, variant, settings)
    return folder, rest | {"use_safetensors": True}


def model_index(path_or_id: PathOrId) -> Config:
    """Return the model_index.json of a folder in diffusers' format, or of a model on the Hub.

    Raises OSError and ValueError, as diffusers does.
    """
    index: object = DiffusionPipeline.load_config(path_or_id)
    if not isinstance(index, dict):
        raise ModelError(f"The model_index.json of {os.fspath(path_or_id)} holds no JSON object.")
    return index


@contextmanager
def load_errors(path_or_id: PathOrId) -> Iterator[None]:
    """Turn what the libraries raise about a model into a ModelError that names it, with their first line."""
    try:
        yield
    except JeDiError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"The model {os.fspath(path_or_id)} cannot be loaded: {reason}") from error


def check_model_folder(path: str | Path, variant: str | None = None, given: Container[str] = ()) -> None:
    """Check a diffusers folder before it is loaded: its weight files, names, shapes, and that all is finite.

    `variant` is diffusers' ("fp16"). Shapes are compared with the module that each component's config
    describes, where its class is a network of diffusers or a text encoder. given: components that come from
    elsewhere. Raises ModelError naming the file and the tensor.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    index = read_json(folder / "model_index.json")
    named = [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(each, str) for each in entry)
        if name not in given
    ]
    missing = [name for name in named if name not in UNUSED and not (folder / name).is_dir()]
    if missing:
        raise ModelError(f"{folder} has no folder {missing[0]}, which its model_index.json names.")
    for name, stem in COMPONENTS.items():
        if name in named:
            _check_component(folder / name, stem, variant)


def parameter_counts(folder: str | Path) -> dict[str, int]:
    """Return the weights of every component of a model folder, by the headers of its files.

    Raises ModelError as `check_model_folder` does, for headers.
    """
    counts = {}
    for name, stem in COMPONENTS.items():
        place = Path(folder) / name
        if place.is_dir():
            headers = [check_weights_file(file) for file in weight_files(place, stem, None)]
            counts[name] = sum(math.prod(shape) for shapes in headers for shape in shapes.values())
    return counts


def network_of_file(
    kind: type[ModelMixin], path: str | Path, folder: str | Path, part: str, dtype: torch.dtype
) -> ModelMixin:
    """Return a network of this class with the weights of a single file, safetensors or GGUF.

    folder: a model's, whose folder `part` has the network's configuration. What GGUF has quantized stays so,
    and is computed with in `dtype`. Raises ModelError that names the file.
    """
    path, settings = Path(path), {}
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(GGUF)) == GGUF
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if is_gguf:
        from diffusers import GGUFQuantizationConfig

        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f"{path} is a GGUF file, which takes the package gguf: pip install gguf.")
        settings["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    else:
        check_weights_file(path)
    load: Callable[..., ModelMixin] = kind.from_single_file  # type: ignore[attr-defined]
    try:
        network = load(str(path), config=str(folder), subfolder=part, dtype=dtype, **settings)
    except Exception as error:  # converters of formats raise whatever a missing tensor leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "meta tensor" in reason:  # what the file lacks has no values
            reason = "tensors are missing."
        raise ModelError(f"{path} holds no {kind.__name__} as {folder} describes it: {reason}") from error
    empty = [name for name, weight in network.named_parameters() if weight.is_meta]
    if empty:
        raise ModelError(
            f"{path} holds no {kind.__name__} as {folder} describes it: {len(empty)} tensors are missing "
            f"({_some(empty)})."
        )
    return network


def load_strict(module: nn.Module, source: str | Path | Mapping[str, torch.Tensor]) -> None:
    """Load weights into `module`, from a safetensors file or a state dict, only if all of them fit.

    Raises ModelError naming the tensors that are missing, unexpected, of another shape, or not finite; the
    module is unchanged then.
    """
    if isinstance(source, str | Path):
        where = str(source)
        check_weights_file(source)
        state: Mapping[str, torch.Tensor] = dict(_tensors(Path(source)))
    else:
        where, state = "The state dict", source
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _compare(where, {name: tuple(tensor.shape) for name, tensor in state.items()}, expected)
    for name, tensor in state.items():
        check_finite(where, name, tensor)
    module.load_state_dict(dict(state), strict=True)


def half_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's state dict on the CPU, floating-point tensors in float16, ready for a file."""
    state = {name: each.detach().cpu().contiguous() for name, each in module.state_dict().items()}
    return {name: each.half() if each.is_floating_point() else each for name, each in state.items()}


def check_weights_file(path: str | Path) -> Shapes:
    """Return shapes of all tensors in a safetensors file, after checking that its header agrees with its
    size.

    Raises ModelError for a pickle, whatever its name, and for a truncated or malformed file.
    """
    path = Path(path)
    if path.suffix in PICKLED:
        raise ModelError(_how_to_convert(path))
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            _check_start(path, start, length, size)
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its safetensors header is not valid JSON.") from error
    return _check_header(path, header, data_bytes=size - 8 - length)


def _check_start(path: Path, start: bytes, length: int, size: int) -> None:
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise ModelError(f"{path} is a pickle under a safetensors name; it was not opened. {_CONVERT}")
    if len(start) < 8 or length > size - 8:
        raise ModelError(
            f"{path} is truncated or not a safetensors file: its header should take {length} bytes, "
            f"but the file has {size}."
        )
    if length > MAX_HEADER_BYTES:
        raise ModelError(
            f"{path} has a header of {length} bytes; more than {MAX_HEADER_BYTES} is not accepted."
        )


def _check_header(path: Path, header: object, data_bytes: int) -> Shapes:
    """Return shapes by name; every tensor must have the bytes its shape asks for, and the file must hold
    them.
    """
    if not isinstance(header, dict):
        raise ModelError(f"{path} is damaged: its safetensors header is not a table of tensors.")
    shapes: Shapes = {}
    needed = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            width, shape, (begin, end) = _BYTES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound or end - begin != width * math.prod(shape):
            raise ModelError(f"{path} is damaged: the header's entry for tensor {name!r} makes no sense.")
        shapes[name] = shape
        needed = max(needed, end)
    if needed > data_bytes:
        raise ModelError(f"{path} is truncated: its tensors need {needed} bytes, but {data_bytes} are there.")
    return shapes


def _check_component(folder: Path, stem: str, variant: str | None) -> None:
    config = read_json(folder / "config.json")
    shapes: Shapes = {}
    files = weight_files(folder, stem, variant)
    for file in files:
        shapes |= check_weights_file(file)
    module = _empty_module(config, folder)
    if module is not None:
        expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        _compare(str(folder), _current_names(shapes, module), _current_names(expected, module))
    for file in files:
        for name, tensor in _tensors(file):
            check_finite(str(file), name, tensor)


def weight_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    """Return the safetensors file of a component, or all its shards; `stem` is the first part of their names.

    Raises ModelError naming the pickle, or what is missing.
    """
    suffix = f".{variant}" if variant else ""
    single = folder / f"{stem}{suffix}.safetensors"
    index = folder / f"{stem}.safetensors.index{suffix}.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = read_json(index, limit=MAX_HEADER_BYTES).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise ModelError(f"{index} has no weight_map.")
        if any(not isinstance(name, str) or Path(name).name != name for name in names.values()):
            raise ModelError(f"{index} names a shard that is not a plain file name.")
        return [folder / name for name in sorted(set(names.values()))]
    present = sorted(file for file in folder.iterdir() if file.is_file())
    pickled = [file for file in present if file.suffix in PICKLED]
    if pickled:
        raise ModelError(_how_to_convert(pickled[0]))
    others = [file.name for file in present if file.suffix == ".safetensors"]
    if variant and others:  # in diffusers' words, which people search for
        raise ModelError(
            f"You are trying to load the model files of the `variant={variant}`, but {folder} has no "
            f"{single.name}; it holds {others[0]}."
        )
    hint = f"; it holds {others[0]}, so give its variant" if others else ""
    raise ModelError(f"{folder} has no {single.name}{hint}.")


_CONVERT = (
    "Load it with diffusers in a sandbox, since a pickle can run any code, and write it again with "
    "save_pretrained(folder, safe_serialization=True)."
)


def _how_to_convert(path: Path) -> str:
    return f"{path} is a pickle; only safetensors are accepted. {_CONVERT}"


def _compare(where: str, found: Shapes, expected: Shapes) -> None:
    """Raise ModelError unless both have the same names with the same shapes."""
    wrong = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of the wrong shape": wrong,
    }
    problems = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if problems:
        raise ModelError(f"{where} does not fit the model: tensors {'; '.join(problems)}.")


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def check_finite(where: str, name: str, tensor: torch.Tensor) -> None:
    """Raise ModelError with `where` and `name` if a tensor holds NaN or infinity."""
    ordinary = tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    if ordinary and not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{where} holds NaN or infinity in tensor {name}; the weights are damaged.")


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of a file in turn, one in memory at a time."""
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged: {error}.") from error


def read_json(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Return the object in a JSON file of at most `limit` bytes. Raises ModelError."""
    try:
        is_small = path.stat().st_size <= limit
        text = path.read_bytes() if is_small else b""
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    if not is_small:
        raise ModelError(f"{path} is larger than {limit} bytes, which no such file needs.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object.")
    return content


def _empty_module(config: dict[str, Any], folder: Path) -> nn.Module | None:
    """Return the module that a config describes, without memory for weights; None for a class not
    known here.
    """
    build = _builder(_class_name(config))
    if build is None:
        return None
    try:
        with torch.device("meta"):
            return build(config)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {error}") from error


def _class_name(config: dict[str, Any]) -> str:
    architectures = config.get("architectures") or [""]  # transformers' key; diffusers' is _class_name
    return str(config.get("_class_name") or architectures[0])


def _builder(name: str) -> Callable[[dict[str, Any]], nn.Module] | None:
    """Return what builds a module of this class from its config: networks of diffusers, text encoders."""
    import diffusers
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        Qwen3Config,
        Qwen3ForCausalLM,
        T5Config,
        T5EncoderModel,
    )

    from jedi_diffusion.networks.autoencoder import PatchAutoencoder

    network = PatchAutoencoder if name == PatchAutoencoder.__name__ else getattr(diffusers, name, None)
    if isinstance(network, type) and issubclass(network, ModelMixin):
        build: Callable[[dict[str, Any]], nn.Module] = getattr(network, "from_config")  # noqa: B009 - a ConfigMixin's
        return build
    encoders: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
        "CLIPTextModel": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
        "CLIPTextModelWithProjection": lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
        "Qwen3ForCausalLM": lambda config: Qwen3ForCausalLM(Qwen3Config(**config)),
        "T5EncoderModel": lambda config: T5EncoderModel(T5Config(**config)),
    }
    return encoders.get(name)


def _current_names(shapes: Shapes, module: nn.Module) -> Shapes:
    """Return names as the libraries use them today: they rename old ones in the same way when they load.

    Left out is what files may lack: weights that are tied to others, and counts of training steps.
    """
    renamed = dict(shapes)
    tied = getattr(module, "_tied_weights_keys", None) or () if _ties_weights(module) else ()
    if isinstance(module, ModelMixin):  # the attention of early autoencoders
        module._fix_state_dict_keys_on_load(renamed)  # type: ignore[arg-type]
    return {
        name.removeprefix("text_model."): shape  # CLIP's text model before transformers 5
        for name, shape in renamed.items()
        if not name.endswith(("position_ids", "num_batches_tracked")) and name not in tied
    }


def _ties_weights(module: nn.Module) -> bool:
    return bool(getattr(getattr(module, "config", None), "tie_word_embeddings", False))


def add_weights(digest: hashlib._Hash, part: str, module: nn.Module) -> None:
    """Feed a hash (of hashlib) with the names, types, shapes and bytes of a module's weights."""
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{part}.{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def network_stamp(network: nn.Module) -> str:
    """Return a digest that changes with a network, its adapters, their scales, its dtype and its weights.

    Of every weight 16 values count, which are read in moments, not those between them. Weights that wait
    elsewhere for their turn (the meta device) count by name and shape.
    """
    digest = hashlib.sha256(f"{id(network)} {sorted(scales_of_adapters(network))}".encode())
    for name, weight in network.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(_sampled(weight))
    return digest.hexdigest()


def _sampled(weight: torch.Tensor) -> bytes:
    if weight.is_meta or type(weight.data) is not torch.Tensor:  # quantized ones have no plain values
        return b""
    flat = weight.detach().flatten()
    chosen = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED]
    return chosen.contiguous().view(torch.uint8).cpu().numpy().tobytes()


def scales_of_adapters(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield what adapters on a network do, by layer: those active, their scales, those merged."""
    for name, module in network.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            state = (getattr(module, each, None) for each in ("active_adapters", "merged_adapters"))
            yield name, f"{sorted(scaling.items())} {[*state]} {getattr(module, 'disable_adapters', False)}"
