"""A tiny random BLIP-Diffusion, laid out as the real checkpoint of 2023 is."""

import json
from pathlib import Path

import torch
from diffusers import PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.deprecated.blip_diffusion.blip_image_processing import BlipImageProcessor
from diffusers.pipelines.deprecated.blip_diffusion.modeling_blip2 import Blip2QFormerModel
from diffusers.pipelines.deprecated.blip_diffusion.modeling_ctx_clip import ContextCLIPTextModel
from transformers import BertTokenizer, Blip2Config, CLIPTextConfig, CLIPTokenizer

from tests.helpers.small_models import random_unet
from tests.helpers.small_pipelines import NARROW_SD14_CONFIG, NOISE, make_tokenizer, sd_parts

NARROW = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "robot", "a")
OLD_LIBRARY = "blip_diffusion"
"""What its classes were filed under when the checkpoint was saved."""


def save_blip_diffusion(home: Path) -> Path:
    """HOME/model, the pipeline, and HOME/words, the tokenizer of its query transformer."""
    BertTokenizer(vocab={word: n for n, word in enumerate(VOCABULARY)}).save_pretrained(home / "words")
    folder, tokenizer = home / "model", make_tokenizer(77)
    parts = sd_parts() | {
        "tokenizer": tokenizer,
        "unet": _unet(),
        "scheduler": PNDMScheduler(**NOISE, set_alpha_to_one=False, skip_prk_steps=True),
        "text_encoder": _text_encoder(tokenizer),
        "qformer": _query_transformer(home / "words"),
        "image_processor": BlipImageProcessor(size={"height": 28, "width": 28}),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    config = folder / "qformer" / "config.json"
    content = json.loads(config.read_text())
    del content["tokenizer"]
    config.write_text(json.dumps(content))
    index = {name: [_library(part), type(part).__name__] for name, part in parts.items()}
    index |= {"_class_name": "BlipDiffusionPipeline", "_diffusers_version": "0.21.0.dev0"}
    index |= {"ctx_begin_pos": 2, "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return home


def _library(part: object) -> str:
    module = type(part).__module__
    return OLD_LIBRARY if OLD_LIBRARY in module else module.split(".")[0]


def _unet() -> UNet2DConditionModel:
    """Four levels, from which the pipeline takes 8 pixels a latent; text matters to it."""
    unet = random_unet(NARROW_SD14_CONFIG | {"cross_attention_dim": 24})
    with torch.no_grad():
        for name, each in unet.named_parameters():
            if ".attn2.to_v" in name:
                each.mul_(20)
    return unet


def _text_encoder(tokenizer: CLIPTokenizer) -> ContextCLIPTextModel:
    torch.manual_seed(5)
    config = CLIPTextConfig(
        **NARROW,
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return ContextCLIPTextModel(config)


def _query_transformer(words: Path) -> Blip2QFormerModel:
    torch.manual_seed(6)
    config = Blip2Config(
        vision_config={**NARROW, "image_size": 28, "patch_size": 14, "hidden_act": "quick_gelu"}
        | {"initializer_range": 0.3},
        qformer_config={
            **NARROW,
            "vocab_size": len(VOCABULARY) + 1,
            "max_position_embeddings": 32,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": 24,
        },
        num_query_tokens=4,
        tokenizer=str(words),
        initializer_range=0.3,
    )
    model = Blip2QFormerModel(config)
    with torch.no_grad():
        model.query_tokens.normal_()
    return model
