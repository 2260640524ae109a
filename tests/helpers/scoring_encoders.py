"""Encoders of the tests: tiny random CLIP and DINO in the real format, and one that needs no network."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np


def save_clip(folder: Path) -> Path:
    """A CLIP with pictures of 224 pixels, as narrow as can be."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from tests.helpers.small_pipelines import make_tokenizer

    tokenizer = make_tokenizer(max_length=12)
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **narrow,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 12,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**narrow, "image_size": 224, "patch_size": 32},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    """A ViT with patches of 16 pixels."""
    import torch
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=224
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


class ColorEncoder:
    """Mean colours as features of length 1; a text is the colour that it names. Counts what it encodes."""

    text_column = "COLOR-T"
    colors: ClassVar = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}

    def __init__(self, name: str = "color", column: str | None = "COLOR-I", fingerprint: str = "1") -> None:
        self.name, self.image_column, self.fingerprint = name, column, fingerprint
        self.pictures = self.words = 0

    def images(self, pictures: Any) -> Any:
        self.pictures += len(pictures)
        rows = np.stack([np.asarray(each, np.float64).mean((0, 1)) + 1 for each in pictures])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def texts(self, texts: Any) -> Any:
        self.words += len(texts)
        rows = [next((row for word, row in self.colors.items() if word in text), (1, 1, 1)) for text in texts]
        rows = np.array(rows, np.float64)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
