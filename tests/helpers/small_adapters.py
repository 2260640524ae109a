"""Tiny random checkpoints of every kind of model that the synthesis uses, saved in the real formats."""

from pathlib import Path

import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SwinConfig,
    T5Config,
)

from tests.helpers.small_pipelines import NOISE, sd_parts, sdxl_parts

CHAT = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[{{ tone }}answer]"
ENDINGS = list(range(40, 80))
"""Tokens that end an answer: many, so that random models come to an end."""
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
MARKS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
BLIP2_MARKS = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "vocab_size": 45}
NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def save_instruct(folder: Path) -> Path:
    """A Llama that reads bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate([*letters, "<end>", "<pad>"])}
    words = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        **SMALL,
        vocab_size=len(vocab),
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
    )
    model = _random(LlamaForCausalLM, config)
    model.generation_config.eos_token_id = [vocab["<end>"], *ENDINGS]
    model.generation_config.repetition_penalty = (
        1.5  # checkpoints bring such things; the adapter does not use them
    )
    model.save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path) -> Path:
    """Grounding DINO with marks where its code looks for them, for pictures of 96 pixels."""
    names = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    names |= {2000: "teapot", 2001: "fire", 2002: "truck", 2003: "a"}
    vocab = {names.get(number, f"[unused{number}]"): number for number in range(2004)}
    BertTokenizer(vocab=vocab).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 144}).save_pretrained(folder)
    backbone = SwinConfig(
        window_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        image_size=64,
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=BertConfig(**SMALL, vocab_size=len(vocab)),
        d_model=32,
        num_queries=12,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        init_std=0.3,
    )
    model = _random(GroundingDinoForObjectDetection, config)
    with torch.no_grad():  # random models are far too sure, and their boxes all of one size
        model.model.decoder.layer_norm.weight.mul_(0.1)
        for name, tensor in model.bbox_embed.named_parameters():
            tensor.copy_(torch.sin(torch.arange(tensor.numel()) * (1.0 + len(name))).view_as(tensor) * 0.1)
    model.save_pretrained(folder)
    return folder


def save_sam(folder: Path) -> Path:
    """SAM for squares of 64 pixels."""
    square = {"height": 64, "width": 64}
    processor = SamImageProcessorPil(
        size={"longest_edge": 64},
        pad_size=square,
        mask_size={"longest_edge": 32},
        mask_pad_size={"height": 32, "width": 32},
    )
    processor.save_pretrained(folder)
    config = SamConfig(
        vision_config={
            **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 32},
            **{"output_channels": 16, "image_size": 64, "patch_size": 8, "window_size": 4},
            **{"global_attn_indexes": [1], "num_pos_feats": 8, "initializer_range": 0.3},
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 8,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            **{"hidden_size": 16, "mlp_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"iou_head_depth": 2, "iou_head_hidden_dim": 16},
        },
        initializer_range=0.3,
    )
    _random(SamModel, config).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """CLIP for pictures of 32 pixels."""
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    config = CLIPConfig(
        text_config={**SMALL, **MARKS, "vocab_size": 40, "max_position_embeddings": 16},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 12},
        projection_dim=12,
    )
    _random(CLIPModel, config).save_pretrained(folder)
    return folder


def save_blip2(folder: Path) -> Path:
    """BLIP-2 on an OPT, which repeats what it is given."""
    text = OPTConfig(
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        init_std=0.5,
        **BLIP2_MARKS,
    )
    return _save_blip2(folder, text)


def save_blip2_t5(folder: Path) -> Path:
    """BLIP-2 on a T5, which has a decoder of its own."""
    text = T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=1, **BLIP2_MARKS
    )
    return _save_blip2(folder, text)


def _save_blip2(folder: Path, text: PreTrainedConfig) -> Path:
    """With a few words, for pictures of 32 pixels."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<image>", *(f"word{number}" for number in range(40))]
    vocab = {name: number for number, name in enumerate(names)}
    words = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(
        tokenizer_object=words, **marks, additional_special_tokens=["<image>"]
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    config = Blip2Config(
        vision_config={**SMALL, "image_size": 32, "patch_size": 8, "initializer_range": 0.3},
        qformer_config={**SMALL, "vocab_size": 40, "encoder_hidden_size": 16, "cross_attention_frequency": 1},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=vocab["<image>"],
        initializer_range=0.3,
    )
    _random(Blip2ForConditionalGeneration, config).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    """SDXL for 64x64 pixels."""
    StableDiffusionXLPipeline(**sdxl_parts(), add_watermarker=False).save_pretrained(folder)
    return folder


def save_inpainting(folder: Path) -> Path:
    """Stable Diffusion inpainting for 64x64 pixels."""
    StableDiffusionInpaintPipeline(**sd_parts(in_channels=9), **NO_CHECKER).save_pretrained(folder)
    return folder


def save_pix2pix(folder: Path) -> Path:
    """InstructPix2Pix for 64x64 pixels, with the real one's scheduler, which draws noise at each step."""
    parts = sd_parts(in_channels=8) | {"scheduler": EulerAncestralDiscreteScheduler(**NOISE, steps_offset=1)}
    StableDiffusionInstructPix2PixPipeline(**parts, **NO_CHECKER).save_pretrained(folder)
    return folder


def _random(kind: type[PreTrainedModel], config: object) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config).eval()
