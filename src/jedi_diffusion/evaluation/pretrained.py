"""CLIP and DINO as the field uses them for DreamBench, from transformers folders of safetensors, in float32.

Preprocessing is fixed here rather than read from the folders: transformers' own settings for DINO resize
without the crop, and its faster image processors resample differently. Pictures are resized by Pillow.
Letters: B pictures or texts; D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jedi_diffusion.errors import ModelError
from jedi_diffusion.loading import load_errors
from jedi_diffusion.vision.features import BATCH, Preprocessing, Rows, exact, in_batches, unit_rows

CLIP_ID = "openai/clip-vit-base-patch32"
DINO_ID = "facebook/dino-vits16"
WEIGHTS = "model.safetensors"

CLIP_PREPROCESSING = Preprocessing(
    224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
DINO_PREPROCESSING = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ClipEncoder:
    """CLIP (ViT-B/32 in the paper): projected features of pictures and texts, of length 1.

    folder: a transformers folder, or a Hub id. Texts are the prompts as they are, cut at 77 tokens. Raises
    ModelError for a folder without safetensors, a damaged one, or another kind of model.
    """

    name = "clip"
    image_column = "CLIP-I"
    text_column = "CLIP-T"
    preprocessing = CLIP_PREPROCESSING

    def __init__(self, folder: str | Path = CLIP_ID, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPTokenizer

        home = _folder_of(folder, "clip")
        self.network = _load(CLIPModel, home, device)
        with load_errors(home):
            self.tokenizer = CLIPTokenizer.from_pretrained(home, local_files_only=True)
        self.fingerprint = _fingerprint(home, self.preprocessing)

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        return unit_rows(
            in_batches(
                pictures,
                self.preprocessing,
                lambda pixels: self.network.get_image_features(pixel_values=pixels).pooler_output,
                self.network.device,
            )
        )

    def texts(self, texts: Sequence[str]) -> Rows:
        rows = []
        for start in range(0, len(texts), BATCH):
            words = self.tokenizer(
                list(texts[start : start + BATCH]),
                padding="max_length",
                truncation=True,
                max_length=self.network.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.network.device)
            with exact():
                found = self.network.get_text_features(
                    input_ids=words.input_ids, attention_mask=words.attention_mask
                )
            rows.append(found.pooler_output.cpu().numpy())
        return unit_rows(np.concatenate(rows))


class DinoEncoder:
    """DINO (ViT-S/16 in the paper): the final class token, brought to length 1.

    folder: as for CLIP. Weights of DINOv2 or of patch size 8 give other numbers, which do not compare.
    """

    name = "dino"
    image_column = "DINO"
    preprocessing = DINO_PREPROCESSING

    def __init__(self, folder: str | Path = DINO_ID, device: str = "cpu") -> None:
        from transformers import ViTModel

        home = _folder_of(folder, "vit")
        self.network = _load(ViTModel, home, device, add_pooling_layer=False)
        self.fingerprint = _fingerprint(home, self.preprocessing)

    def images(self, pictures: Sequence[Image.Image]) -> Rows:
        return unit_rows(
            in_batches(
                pictures,
                self.preprocessing,
                lambda pixels: self.network(pixel_values=pixels).last_hidden_state[:, 0],
                self.network.device,
            )
        )


def _folder_of(name: str | Path, kind: str) -> Path:
    """The folder of an encoder, fetched from the Hub where it is none, with weights that are whole.

    kind: transformers' `model_type`. Raises ModelError.
    """
    from jedi_diffusion.weights import check_weights_file

    home = Path(name)
    if not home.is_dir():
        home = _download(str(name))
    config = home / "config.json"
    try:
        found = json.loads(config.read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{config} cannot be read: {error}.") from error
    if found != kind:
        raise ModelError(f"{home} holds a model of type {found}, where one of type {kind} is needed.")
    if not (home / WEIGHTS).is_file():
        raise ModelError(
            f"{home} has no {WEIGHTS}. Pickled weights (pytorch_model.bin) are never opened here: convert "
            "them in a sandbox, with from_pretrained(...).save_pretrained(folder)."
        )
    check_weights_file(home / WEIGHTS)
    return home


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", WEIGHTS]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"The encoder {name} is neither a folder nor can it be fetched from the Hub: {reason}"
        ) from error


def _load(kind: Any, home: Path, device: str, **settings: Any) -> Any:
    """The network with every weight from the file, in float32."""
    import torch

    with load_errors(home):
        network, report = kind.from_pretrained(
            home,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            attn_implementation="sdpa",
            **settings,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"{home / WEIGHTS} lacks {len(missing)} tensors of the model, such as {missing[0]}.")
    return network.to(device).eval()


def _fingerprint(home: Path, preprocessing: Preprocessing) -> str:
    """SHA-256 over the configuration, the weights and the preprocessing."""
    digest = hashlib.sha256(json.dumps(asdict(preprocessing)).encode())
    for name in ("config.json", WEIGHTS):
        with (home / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        if (home / name).is_file():
            digest.update((home / name).read_bytes())
    return digest.hexdigest()
