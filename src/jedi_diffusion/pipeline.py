"""JeDiPipeline: references and prompts in, new pictures of the subject out (section 3.3 of the paper).

Letters: R references; T targets; I pictures of all sets; C, H, W a latent's channels, height, width.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.quantizers import PipelineQuantizationConfig
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from jedi_diffusion.adapters import RecordedAdapters
from jedi_diffusion.backbones import PUBLISHED, SINGLE_IMAGE, family_of, network_class
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.text import TextReader
from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.inputs import (
    Caption,
    Picture,
    Request,
    Texts,
    check_choice,
    check_encoded,
    check_latents,
    check_prompt,
    check_recordable,
    check_same_length,
    check_tensor_inputs,
    check_text_inputs,
    checked_count,
    checked_schedule,
    checked_temperature,
    fresh_scheduler,
    one_generator_each,
    one_negative_each,
    picture_size,
    read_prompt,
    read_texts,
    texts_of,
)
from jedi_diffusion.joint.denoiser import Denoiser
from jedi_diffusion.joint.guidance import plan_guidance
from jedi_diffusion.joint.process import Scheduler
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.joint.references import EncodedReferences
from jedi_diffusion.joint.sampler import SamplingPlan, Step, draw_noise, sample
from jedi_diffusion.options import Coupling, GuidanceMode, Masking, NullSet, Sampling, check_interval
from jedi_diffusion.parts import Autoencoder, Config, setting
from jedi_diffusion.references import Reference, listed_references, read_pictures, with_found_masks
from jedi_diffusion.sets import Conditions, SetBatch, concatenate_rows, select_rows
from jedi_diffusion.visibility import Visibility
from jedi_diffusion.weights import PathOrId, checked_folder, load_errors, model_index, network_of_file

logger = logging.getLogger(__name__)

NETWORK_SETTINGS = ("dtype", "torch_dtype", "use_safetensors", "variant")
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
Images = list[Image.Image] | NDArray[np.float32] | Tensor
Callback = Callable[["JeDiPipeline", int, Tensor, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class JeDiPipelineOutput(BaseOutput):
    """images, prompt-major: a list of RGB pictures (pil), or an array (T, H, W, 3) in 0..1 (np), or a tensor
    (T, 3, H, W) in 0..1 (pt), or the scaled latents (T, C, H, W) (latent)."""

    images: Images


class JeDiPipeline(RecordedAdapters):
    """Personalized text-to-image generation with a joint-image model.

    unet or transformer: what denoises, of a family that `backbones` knows; coupled attention is installed on
    it. A UNet has 2C + 1 input channels. text_encoder_2, text_encoder_3 and their tokenizers: where the
    family has them; without a text encoder calls take embeddings. Adapters trained on a base model are put
    on top of it with `load_lora_weights`, and calls take the coupling that those know.
    force_zeros_for_empty_prompt: an empty caption's embedding is zero, as in SDXL's base model.
    coupling: what a call takes that names none: the one that most of the training used.
    distance_slope: how much attention prefers near positions (`install_coupling`); None: as the UNet has it.
    temperature: what a call takes that names none; 1 for a model that has learned its world.
    masking: what a call takes that names none; "white" for a model that knows things before plain grounds.
    targets_show: what targets have in the channels where references show their latents: "zeros", the paper's,
    or "grey", the encoding of a grey picture, which inpainting checkpoints were trained with.
    is_distilled: whether the model was distilled to few steps without guidance, as FLUX.2 [klein] says it.
    clean_references: whether references are shown clean alone (`Backbone`); None: as the family does it.
    Raises ModelError for a network that is not joint.
    """

    vae: Autoencoder
    unet: ModelMixin | None
    transformer: ModelMixin | None
    scheduler: Scheduler
    tokenizer: PreTrainedTokenizerBase
    text_encoder: PreTrainedModel
    tokenizer_2: PreTrainedTokenizerBase | None
    text_encoder_2: PreTrainedModel | None
    tokenizer_3: PreTrainedTokenizerBase | None
    text_encoder_3: PreTrainedModel | None

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->unet->transformer->vae"  # type: ignore[assignment]
    # diffusers reads these two from the class
    _optional_components = [  # noqa: RUF012
        *("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3", "unet", "transformer")
    ]
    _callback_tensor_inputs = ["latents", "clean_latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: ModelMixin,
        text_encoder: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        unet: ModelMixin | None,
        scheduler: SchedulerMixin,
        text_encoder_2: PreTrainedModel | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
        transformer: ModelMixin | None = None,
        text_encoder_3: PreTrainedModel | None = None,
        tokenizer_3: PreTrainedTokenizerBase | None = None,
        force_zeros_for_empty_prompt: bool = False,
        coupling: str = "joint",
        distance_slope: float | None = None,
        temperature: float = 1.0,
        masking: str = "tokens",
        targets_show: str = "zeros",
        is_distilled: bool = False,
        clean_references: bool | None = None,
    ) -> None:
        super().__init__()
        network = transformer if unet is None else unet
        if network is None:
            raise ModelError("The model has neither a unet nor a transformer; one of them must denoise.")
        family_of(network).couple(network, distance_slope)
        self.register_modules(  # type: ignore[no-untyped-call]
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=transformer,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        )
        check_choice("coupling", coupling, get_args(Coupling))
        check_choice("masking", masking, get_args(Masking))
        check_choice("targets_show", targets_show, ("zeros", "grey"))
        self.register_to_config(  # type: ignore[no-untyped-call]
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            coupling=coupling,
            distance_slope=self.backbone.distance_slope,
            temperature=checked_temperature(temperature),
            masking=masking,
            targets_show=targets_show,
            is_distilled=is_distilled,
            clean_references=clean_references,
        )
        self.vae_scale_factor = self.backbone.stride(self.vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)
        self._interrupt = False
        self._num_timesteps = 0
        self._reported: set[str] = set()

    @property
    def own_sampling(self) -> Sampling:
        """Steps and guidance of a call that names none; coupling and temperature are the model's own too."""
        return self.backbone.own_sampling(self.config["is_distilled"])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: PathOrId, **kwargs: object) -> "JeDiPipeline":
        """Return a trained joint model from a diffusers folder or the Hub; safetensors only.

        Among them are published models that read references as they are (`backbones.PUBLISHED`). kwargs:
        diffusers' (dtype, variant, revision, quantization_config, ...), and components, for which the folder
        needs no files; `transformer` may be a file, safetensors or GGUF. The weights are checked before
        anything is built from them. Raises ModelError.
        """
        with load_errors(pretrained_model_name_or_path):
            folder, settings = checked_folder(pretrained_model_name_or_path, cls.download, kwargs)
            settings |= cls._of_single_file(folder, settings)
            index = model_index(folder)
            published = PUBLISHED.get(setting(index, "_class_name", str, ""), {})
            named = index.get("tokenizer")
            if not (isinstance(named, list) and str(named[-1]).endswith("Processor")):
                return super().from_pretrained(folder, **{**published, **settings})
            # Processors prepare images too, which nobody gives them, and may need torchvision for that.
            tokenizer = settings.pop("tokenizer", None) or AutoTokenizer.from_pretrained(
                folder, subfolder="tokenizer"
            )
            made = super().from_pretrained(folder, **{**published, **settings, "tokenizer": None})
            made.register_modules(tokenizer=tokenizer)  # type: ignore[no-untyped-call]
            return made

    @classmethod
    def from_single_image_model(
        cls, pretrained_model_name_or_path: PathOrId, **kwargs: object
    ) -> "JeDiPipeline":
        """Return an untrained joint model from a single-image one (SD 1.x, 2.x, SDXL, SD3, FLUX.1; also
        inpainting).

        Training starts here. Sampled as it is, with coupling "joint", it is the training-free variant:
        coupled attention and replacement. Safety checker and feature extractor are left out. Targets show
        what the base was trained with: the encoding of grey for an inpainting one, else zeros. kwargs and
        errors as for `from_pretrained`.
        """
        with load_errors(pretrained_model_name_or_path):
            folder, settings = checked_folder(pretrained_model_name_or_path, cls.download, kwargs)
            ours = {name: settings[name] for name in NETWORK_SETTINGS if name in settings}
            index = model_index(folder)
            part, kind = network_class(index, folder)
            if isinstance(quantization := settings.get("quantization_config"), PipelineQuantizationConfig):
                ours["quantization_config"] = quantization._resolve_quant_config(module_name=part)
            made = cls._of_single_file(folder, settings).get(part)
            network = made or kind.from_pretrained(folder, subfolder=part, **ours)
            given, out = (network.config.get(name) for name in ("in_channels", "out_channels"))
            told: dict[str, str | bool] = {"targets_show": "grey" if given > (out or given) else "zeros"}
            told |= SINGLE_IMAGE.get(setting(index, "_class_name", str, ""), {})
            family_of(network).make_joint(network)
            return super().from_pretrained(folder, **{**told, **settings, part: network})

    @classmethod
    def _of_single_file(cls, folder: str, settings: Config) -> dict[str, ModelMixin]:
        """Return the transformer of a call that gives a file for it. Raises ModelError."""
        file = settings.get("transformer")
        if not isinstance(file, str | os.PathLike):
            return {}
        _, kind = network_class(model_index(folder), folder)
        given = settings.get("dtype", settings.get("torch_dtype"))
        dtype = given if isinstance(given, torch.dtype) else torch.float32
        return {"transformer": network_of_file(kind, Path(file), folder, "transformer", dtype)}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: object, **kwargs: object
    ) -> None:
        """Write the model into a folder that `from_pretrained` reads. Raises UsageError with adapters loaded:
        their layers lie around the model's own, which such a folder cannot say."""
        if getattr(self.network, "peft_config", None):
            raise UsageError(
                "Adapters are loaded, so the model cannot be saved as it is: merge them with "
                "pipe.fuse_lora() and then pipe.unload_lora_weights(), or call that alone."
            )
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[arg-type]

    @property
    def interrupt(self) -> bool:
        """Set to True, by a callback or another thread, to stop the call that runs within one step."""
        return self._interrupt

    @interrupt.setter
    def interrupt(self, value: bool) -> None:
        self._interrupt = value

    @property
    def num_timesteps(self) -> int:
        """Steps of the latest call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        references: Sequence[Picture | Reference] | Picture | Reference | EncodedReferences = (),
        reference_prompts: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_mode: GuidanceMode | None = None,
        image_guidance_scale: float | None = None,
        embedded_guidance: float | None = None,
        match_norms: bool = False,
        guidance_start: float = 0.0,
        guidance_stop: float = 1.0,
        references_start: float = 0.0,
        references_stop: float = 1.0,
        coupled_layers: str = "all",
        auto_mask: bool = False,
        masking: Masking | None = None,
        coupling: Coupling | None = None,
        null_set: NullSet | None = None,
        joint_targets: bool = False,
        temperature: float | None = None,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_2: str | Sequence[str] | None = None,
        prompt_3: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        negative_prompt_3: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        max_sequence_length: int | None = None,
        sigmas: Sequence[float] | None = None,
        timesteps: Sequence[float] | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
        attention_record: AttentionRecord | None = None,
        denoiser: Denoiser | None = None,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        return_dict: bool = True,
    ) -> JeDiPipelineOutput | tuple[Images]:
        """Return new pictures of the references' subject, `num_images_per_prompt` for each prompt,
        prompt-major.

        Steps, guidance and null_set are the model's own where they are None (`own_sampling`).
        references: any number of pictures, as the family reads them (`Backbone.fit_references`), of
        `Reference`s, which say how they are read, or what `encode_references` made of them.
        reference_prompts: None (no captions, or the `Reference`s' own), one for all, or one each.
        guidance_scale: eq. 3's scale, the text's in eq. 4; image_guidance_scale: the references' in eq. 4,
        None for the same where the model has none of its own. guidance_mode, match_norms: `plan_guidance`.
        embedded_guidance: what a model that takes guidance as an input (FLUX.1 [dev]) is told.
        guidance_start, guidance_stop: guidance acts between these shares of the steps alone, 0 to 1; the
        others are faster.
        references_start, references_stop: the references are read between these shares of the steps alone.
        coupled_layers: attention layers in which pictures read each other (`Backbone.layers_named`).
        auto_mask: references without a mask get that of their subject (`with_found_masks`).
        masking: "tokens": what masks leave out is not read; "white": it is painted over, and all is read;
        None: the model's own.
        coupling: "joint", the paper's; "cached": references run once, and every step and target reads them;
        None: the model's own (`own_coupling`), or "joint" with joint_targets.
        null_set: "joint" keeps the re-noised references in the unconditional set (eq. 3), "single" runs each
        target as a set of one; with coupling "cached", and where references are shown clean alone, both are
        the same.
        joint_targets: all targets share one set, instead of one set a target; coupling "joint" only.
        temperature: 0 to 1, what the first noise is scaled by (`SamplingPlan`); None: the model's own.
        height, width: pixels, by default the UNet's own size.
        generator: one a picture, or one for all: the first picture then draws from it, as from a list of it
        alone, and picture k from one of its own, which depends on the state that it has now and on k only.
        None draws a seed from torch's global state.
        latents: (T, C, H, W) of unit variance, in place of the noise that targets would draw.
        negative_prompt: what the targets are guided away from, one for all or one a prompt; the references
        are not. prompt_2, prompt_3, negative_prompt_2, negative_prompt_3: what the second and the third text
        encoder read in their place, one for all or one each. prompt_embeds (prompts, K, D),
        pooled_prompt_embeds (prompts, P): in place of `prompt` what the text encoders make of it; the same
        for `negative_prompt`. max_sequence_length: tokens that captions are cut at, for T5 and Qwen3.
        sigmas, timesteps: every step, as the scheduler's `set_timesteps` takes them.
        callback_on_step_end(pipeline, step, timestep, tensors): of the tensors (T, C, H, W), "latents" go on
        to the next step, and it may return others; "clean_latents" are what the network takes the pictures to
        be, for previews. callback_on_step_end_tensor_inputs: which of them it gets, all by default.
        attention_record: takes down where the targets look (Figure 5), in the branch of guidance with most
        conditions; references come first among the pictures of its maps. The pictures stay the same.
        denoiser: what predicts in the backbone's place, for methods that condition the network in other ways;
        coupling "joint" only.
        Everything is checked before the first forward; raises UsageError.
        """
        self._interrupt = False
        check_choice("output_type", output_type, OUTPUT_TYPES)
        own, config = self.own_sampling, self.config
        check_choice("null_set", null_set or own.null_set, get_args(NullSet))
        scale = own.guidance if guidance_scale is None else guidance_scale
        image_scale = own.image_guidance if image_guidance_scale is None else image_guidance_scale
        mode, interval = guidance_mode or own.guidance_mode, (guidance_start, guidance_stop)
        examples = self.backbone.example_conditions(1, 1)
        encoders = max(1, len(self._text_encoders))
        schedule = checked_schedule(self.scheduler, sigmas, timesteps, num_inference_steps)
        names = callback_on_step_end_tensor_inputs or self._callback_tensor_inputs
        check_tensor_inputs(names, self._callback_tensor_inputs)
        spelled_out = next((len(each) for each in schedule.values()), num_inference_steps)
        encoded, given = None, list[Reference]()
        if isinstance(references, EncodedReferences):
            encoded = references
            if reference_prompts is not None:
                raise UsageError(
                    "Encoded references have their captions in them: give reference_prompts to "
                    "encode_references."
                )
        else:
            given = listed_references(references, reference_prompts)
            given = with_found_masks(given) if auto_mask else given
        own_coupling: Coupling = "cached" if encoded is not None else self.own_coupling
        request = self._check(
            texts=read_texts(
                "prompt",
                prompt,
                prompt_embeds,
                pooled_prompt_embeds,
                examples,
                (prompt_2, prompt_3),
                encoders,
            ),
            negatives=read_texts(
                "negative_prompt",
                negative_prompt,
                negative_prompt_embeds,
                negative_pooled_prompt_embeds,
                examples,
                (negative_prompt_2, negative_prompt_3),
                encoders,
            ),
            text_tokens=max_sequence_length,
            references=given,
            encoded=encoded,
            images_per_prompt=num_images_per_prompt,
            steps=own.steps if spelled_out is None else spelled_out,
            schedule=schedule,
            guidance=(mode, scale, image_scale, interval),
            match_norms=match_norms,
            embedded_guidance=embedded_guidance,
            reads=(references_start, references_stop),
            coupled_layers=coupled_layers,
            masking=masking or config["masking"],
            coupling=coupling or ("joint" if joint_targets else own_coupling),
            null_set=null_set or own.null_set,
            joint_targets=joint_targets,
            temperature=config["temperature"] if temperature is None else temperature,
            size=(height, width),
            generator=generator,
            latents=latents,
            attention_record=attention_record,
        )
        if denoiser is not None and request.coupling == "cached":
            raise UsageError("A denoiser of one's own reads references at every step: use coupling 'joint'.")
        if denoiser is not None and request.coupled_layers is not None:
            raise UsageError("A denoiser of one's own says which layers couple: leave coupled_layers out.")
        apart = any(each is not None and each.subject is not None for each in request.visibility)
        if apart and attention_record is not None:
            raise UsageError(
                "Where pictures look cannot be recorded where references have subjects or regions: leave "
                "these or attention_record out."
            )
        if denoiser is not None and any(request.visibility):
            raise UsageError("A denoiser of one's own reads whole references: leave masks and strengths out.")
        self._num_timesteps = len(request.scheduler.timesteps)
        made = self._sample(request, denoiser, callback_on_step_end, names)
        images = self._to_output(made, output_type)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return JeDiPipelineOutput(images=images) if return_dict else (images,)

    def _check(
        self,
        texts: Texts | None,
        negatives: Texts | None,
        text_tokens: int | None,
        references: list[Reference],
        encoded: EncodedReferences | None,
        images_per_prompt: int,
        steps: int,
        schedule: dict[str, list[float]],
        guidance: tuple[GuidanceMode, float, float | None, tuple[float, float]],
        match_norms: bool,
        embedded_guidance: float | None,
        reads: tuple[float, float],
        coupled_layers: str,
        masking: Masking,
        coupling: Coupling,
        null_set: NullSet,
        joint_targets: bool,
        temperature: float,
        size: tuple[int | None, int | None],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        latents: Tensor | None,
        attention_record: AttentionRecord | None,
    ) -> Request:
        """Check all of a call; nothing has run on a network yet."""
        if texts is None or not texts.count:
            raise UsageError("There is no prompt; give at least one.")
        negatives = negatives and one_negative_each(negatives, texts.count)
        check_choice("coupling", coupling, get_args(Coupling))
        check_choice("masking", masking, get_args(Masking))
        if coupling == "cached" and joint_targets:
            raise UsageError("joint_targets needs coupling='joint'; cached targets never see each other.")
        check_interval(*reads, "references")
        if encoded is not None:
            check_encoded(coupling)
            encoded.check(self.network, self.backbone.layers_named(coupled_layers))
        captions = [each.caption for each in references]
        count = len(references) if encoded is None else len(encoded)
        whole = [*texts.captions, *captions, *(negatives.captions if negatives else ())]
        said = [text for caption in whole for text in texts_of(caption)]
        for text in said:
            check_prompt(text)
            if text:
                self._need_text_encoder(text)
        times = checked_count("num_images_per_prompt", images_per_prompt)
        rows = [number for number in range(texts.count) for _ in range(times)]
        if self.backbone.clean_references:
            null_set = "single"
        sets_differ = bool(count) or (null_set == "single" and joint_targets and len(rows) > 1)
        plan = plan_guidance(
            *guidance,
            text_matters=any(captions)
            or texts.matter
            or (negatives is not None and negatives.matter)
            or (encoded is not None and encoded.has_captions),
            pictures_matter=sets_differ,
            match_norms=match_norms,
        )
        if negatives is not None and all(each.text for each in plan.conditions):
            raise UsageError(
                "A negative prompt is what guidance leads away from, and with these scales there is no "
                "guidance: take a guidance_scale other than 1, or leave it out."
            )
        if attention_record is not None:
            check_recordable(count, plan)
        backbone, device = self.backbone, self._execution_device
        check_text_inputs(text_tokens, backbone.most_text_tokens, embedded_guidance, backbone.own_guidance)
        own_size = None if encoded is None else encoded.size
        height, width = picture_size(
            *(own_size if own_size and size == (None, None) else size),
            backbone.latent_size,
            self.vae_scale_factor,
            backbone.size_multiple,
        )
        if own_size not in (None, (height, width)):
            raise UsageError(
                f"The references were encoded for pictures of {own_size} pixels (height, width), not "
                f"{(height, width)}: encode them for these."
            )
        channels, *latent_size = self._latent_shape(height, width)
        if latents is not None:
            check_latents(latents, (len(rows), channels, *latent_size))

        def set_timesteps(scheduler: Scheduler) -> None:
            backbone.set_timesteps(scheduler, steps, (latent_size[0], latent_size[1]), device, schedule)

        def fit(pictures: Sequence[Picture]) -> list[Tensor]:
            return backbone.fit_references(pictures, (height, width))

        pixels, visibility = read_pictures(references, fit, masking)
        request = Request(
            texts=texts.rows(rows),
            negatives=negatives and negatives.rows(rows),
            text_tokens=text_tokens,
            embedded_guidance=embedded_guidance,
            captions=captions,
            size=(height, width),
            pixels=pixels,
            visibility=visibility,
            encoded=encoded,
            guidance=plan,
            scheduler=fresh_scheduler(self.scheduler, steps, set_timesteps),
            generators=one_generator_each(generator, len(rows)),
            coupling=coupling if count else "joint",
            null_set=null_set,
            joint_targets=joint_targets,
            temperature=checked_temperature(temperature),
            latents=latents,
            attention_record=attention_record,
            references_start=reads[0],
            references_stop=reads[1],
            coupled_layers=backbone.layers_named(coupled_layers),
        )
        self._report_unknown_words(said)
        self._report_untrained(request)
        return request

    def untrained(self, references: int, coupling: Coupling) -> dict[str, str]:
        """Return what the model was not trained for in a call with so many references: a sentence a kind."""
        most, found = self.backbone.trained_references, dict[str, str]()
        if most is not None and references > most:
            counted = f"{most} reference{'s' * (most > 1)}; {references} are given"
            found["references"] = f"This model was trained with at most {counted}."
        if references and self.backbone.cache_untrained and coupling == "cached" != self.own_coupling:
            found["coupling"] = (
                "This model was not trained with coupling 'cached': references that read nothing else may be "
                f"followed less well than with its own, {self.config['coupling']!r}."
            )
        return found

    def _report_untrained(self, request: Request) -> None:
        """Warn of what the model was not trained for, of each kind once."""
        for kind, said in self.untrained(request.references, request.coupling).items():
            if kind not in self._reported:
                self._reported.add(kind)
                logger.warning("%s", said)

    def _report_unknown_words(self, prompts: Sequence[str]) -> None:
        read = (read_prompt(self.tokenizer, prompt) for prompt in prompts if prompt)
        words = [word for reading in read for word in reading.unknown]
        if words:
            listed = ", ".join(dict.fromkeys(words))
            logger.warning("The model does not know these words and leaves them out: %s.", listed)

    @property
    def backbone(self) -> Backbone:
        """The network as the joint model calls it.

        It is coupled again where one of diffusers' switches (attention slicing, default processors) has put
        plain attention in its place.
        """
        family, config = family_of(self.network), self.config
        if not family.is_coupled(self.network):
            family.couple(self.network, config["distance_slope"])
        made = family(self.network)
        if config.get("clean_references") is not None:
            made.clean_references = config["clean_references"]
        return made

    @property
    def network_name(self) -> str:
        """What the network is called among the components: "unet" or "transformer"."""
        return "transformer" if self.unet is None else "unet"

    @property
    def network(self) -> ModelMixin:
        """The network that denoises."""
        network: ModelMixin = getattr(self, self.network_name)
        return network

    def _sample(
        self,
        request: Request,
        denoiser: Denoiser | None,
        callback: Callback | None,
        tensor_names: Sequence[str],
    ) -> Tensor:
        """Return the targets' latents (T, C, H, W). callback: gets the tensors of these names."""
        backbone = self.backbone
        backbone.coupled_layers = request.coupled_layers
        sets = self._encode_sets(request)
        null = self._encode_null(request)
        check_same_length(sets.conditions, null)
        plan = SamplingPlan(sets, null, request.guidance, request.null_set)
        if request.coupling == "cached":
            plan = self._run_references_once(plan, backbone, request.encoded)
        plan = replace(
            plan,
            attention_record=request.attention_record,
            temperature=request.temperature,
            references_start=request.references_start,
            references_stop=request.references_stop,
        )
        noise = draw_noise(plan.batch, request.generators, request.latents)
        _, height, width = self._latent_shape(*request.size)
        padding = (0, noise.shape[3] - width, 0, noise.shape[2] - height)  # where references are larger

        with self.progress_bar(total=len(request.scheduler.timesteps)) as bar:

            def after_step(step: Step) -> Tensor | None:
                bar.update()
                if callback is None:
                    return None
                own = {"latents": step.latents, "clean_latents": step.clean}
                tensors = {name: own[name][..., :height, :width] for name in tensor_names}
                changed = (callback(self, step.number, step.timestep, tensors) or {}).get("latents")
                return None if changed is None else F.pad(changed, padding)

            made = sample(
                denoiser or backbone,
                request.scheduler,
                plan,
                noise,
                request.generators,
                after_step,
                lambda: self._interrupt,
            )
            return made[..., :height, :width]

    def _encode_sets(self, request: Request) -> SetBatch:
        """Return the sets: the references and one target each, or all targets in one set (settled question
        7).
        """
        device = self._execution_device
        given, extents = self._encode_pixels(request.pixels, request.size, request.texts.count)
        text = self._encode_texts(request, request.captions, request.texts)
        groups, rows = request.groups, request.rows
        visibility = [*request.visibility, *[None] * request.texts.count]
        empty = torch.zeros(request.texts.count, *given.shape[1:], device=device)
        mask = torch.tensor([float(row >= len(given)) for row in rows], device=device)
        blank = self.blank_latents(*request.size)
        sizes = self.backbone.size_conditions(len(rows), *request.size, device)
        if request.embedded_guidance is not None:
            told = [self.backbone.own_guidance] * len(given) + [request.embedded_guidance] * len(empty)
            sizes["guidance"] = torch.tensor([told[row] for row in rows], device=device)
        return SetBatch(
            latents=torch.cat([given, empty])[rows],
            mask=mask.view(-1, 1, 1, 1),
            conditions=select_rows(text | extents, rows) | sizes,
            set_sizes=tuple(len(given) + len(group) for group in groups),
            blank=None if blank is None else blank.expand(len(rows), -1, -1, -1),
            visibility=tuple(visibility[row] for row in rows) if any(visibility) else None,
        )

    def _encode_pixels(
        self, pixels: Sequence[Tensor], size: tuple[int, int], targets: int = 0
    ) -> tuple[Tensor, Conditions]:
        """Return references as latents (R, C, H, W), and what that makes a condition of them and of so many
        targets of `size` in pixels.

        Where sizes differ, all are padded to the largest, the targets' included, and `extent` has their own.
        """
        if all(each.shape[1:] == size for each in pixels):
            whole = torch.stack(list(pixels)) if pixels else torch.zeros(0, 3, *size)
            return self.encode_pictures(whole), {}
        made = [self.encode_pictures(each[None])[0] for each in pixels]
        shapes = [each.shape[1:] for each in made] + [torch.Size(self._latent_shape(*size)[1:])] * targets
        height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
        padded = [F.pad(each, (0, width - each.shape[2], 0, height - each.shape[1])) for each in made]
        return torch.stack(padded), {"extent": torch.tensor(shapes, device=self._execution_device)}

    def encode_references(
        self,
        references: Sequence[Picture | Reference] | Picture | Reference,
        reference_prompts: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        coupled_layers: str = "all",
        auto_mask: bool = False,
        masking: Masking | None = None,
    ) -> EncodedReferences:
        """Return references for any number of later calls, which take it in the place of pictures.

        Such calls are those with the pictures and coupling "cached", without the pass over the references;
        what is kept is large (`nbytes`). reference_prompts: as in a call. height, width: of the pictures that
        will be made, where the family brings references to their size; by default the network's own.
        coupled_layers, auto_mask, masking: as in those calls. Raises UsageError.
        """
        given, backbone = listed_references(references, reference_prompts), self.backbone
        if not given:
            raise UsageError("There are no references to encode; give at least one.")
        given = with_found_masks(given) if auto_mask else given
        captions = [each.caption for each in given]
        for text in captions:
            check_prompt(text)
        height, width = picture_size(
            height, width, backbone.latent_size, self.vae_scale_factor, backbone.size_multiple
        )
        backbone.coupled_layers = backbone.layers_named(coupled_layers)
        size = height, width

        def fit(pictures: Sequence[Picture]) -> list[Tensor]:
            return backbone.fit_references(pictures, size)

        masking = masking or self.config["masking"]
        check_choice("masking", masking, get_args(Masking))
        pixels, visibility = read_pictures(given, fit, masking)
        with torch.no_grad():
            latents, extents = self._encode_pixels(pixels, size)
            silent = self._single_set(latents, [""] * len(given), extents, size, visibility)
            captioned = silent
            if any(captions):
                captioned = self._single_set(latents, captions, extents, size, visibility)
            fitted = size if backbone.own_shape is None else None
            made = EncodedReferences(captioned, None if captioned is silent else silent, fitted)
            made.bind(self.network, backbone.coupled_layers)
            made.read([True], backbone.fill_cache)
        self._report_unknown_words(captions)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return made

    def _single_set(
        self,
        latents: Tensor,
        captions: Sequence[str],
        extents: Conditions,
        size: tuple[int, int],
        visibility: Sequence[Visibility | None],
    ) -> SetBatch:
        """Return references alone, as one set. size: that of targets in pixels."""
        count, device, backbone = len(latents), self._execution_device, self.backbone
        if any(captions) or backbone.reads_empty_captions("cached"):
            text = self.encode_captions(captions)
        else:
            shapes = backbone.example_conditions(count, 1)  # on the meta device with sequential offloading
            text = {name: torch.zeros(each.shape, device=device) for name, each in shapes.items()}
            text["captioned"] = torch.zeros(count, dtype=torch.bool, device=device)
        sizes = backbone.size_conditions(count, *size, device)
        return SetBatch(
            latents,
            torch.zeros(count, 1, 1, 1, device=device),
            text | extents | sizes,
            (count,),
            visibility=tuple(visibility) if any(visibility) else None,
        )

    def _run_references_once(
        self, plan: SamplingPlan, backbone: Backbone, encoded: EncodedReferences | None
    ) -> SamplingPlan:
        """Fill a cache with one pass over the references; the sets that remain are the targets alone.

        The references run with their captions, with empty ones, or with both, as guidance's branches ask;
        once where they read no text. encoded: references that may have run already.
        """
        captions = [text for text in (True, False) if (text, True) in plan.guidance.conditions]
        if encoded is None:
            first = list(range(plan.batch.set_sizes[0] - 1))
            references = plan.batch.select(first, (len(first),))
            captioned = references.conditions.get("captioned")
            differ = False in captions and (captioned is None or bool(captioned.any()))
            silent = references.conditioned(plan.null_of(first)) if differ else None
            encoded = EncodedReferences(references, silent)
        targets = torch.nonzero(~plan.batch.is_reference).flatten()
        plan = replace(
            plan, batch=plan.batch.select(targets, (1,) * len(targets)), null=plan.null_of(targets)
        )
        if not captions:
            return plan
        return replace(plan, cached=encoded.read(captions, backbone.fill_cache))

    def _encode_texts(self, request: Request, captions: Sequence[str], texts: Texts) -> Conditions:
        """Return what the network reads of the references' captions, a row each, and then of the targets'
        texts."""
        coupling, backbone = request.coupling, self.backbone
        silent = not any(captions) and not backbone.reads_empty_captions(coupling)
        read = [] if silent else list(captions)
        if texts.embedded is None:
            made = self.encode_captions([*read, *texts.captions], request.text_tokens)
        else:
            made = {name: each.to(self._execution_device) for name, each in texts.embedded.items()}
            if not backbone.reads_empty_captions("joint"):
                made["captioned"] = torch.ones(texts.count, dtype=torch.bool, device=self._execution_device)
            if read:
                before = self.encode_captions(read, request.text_tokens)
                check_same_length(made, before)
                made = concatenate_rows([before, made])
        if silent and captions:
            nothing = select_rows(made, [0] * len(captions))
            nothing["captioned"] = torch.zeros_like(nothing["captioned"])
            made = concatenate_rows([nothing, made])
        return made

    def _encode_null(self, request: Request) -> Conditions:
        """Return `SamplingPlan.null`: negative prompts are the targets' alone."""
        if all(each.text for each in request.guidance.conditions):
            return {}
        if request.negatives is None:
            return self.encode_captions([""], request.text_tokens)
        made = self._encode_texts(request, [""] * len(request.captions), request.negatives)
        return select_rows(made, request.rows)

    @property
    def _text_encoders(self) -> list[tuple[PreTrainedTokenizerBase, PreTrainedModel]]:
        """Those that are loaded, in order, each behind its tokenizer."""
        tokenizers = (self.tokenizer, self.tokenizer_2, self.tokenizer_3)
        encoders = (self.text_encoder, self.text_encoder_2, self.text_encoder_3)
        pairs = zip(tokenizers, encoders, strict=True)
        return [(each, encoder) for each, encoder in pairs if each is not None and encoder is not None]

    def encode_captions(self, captions: Sequence[Caption], most_tokens: int | None = None) -> Conditions:
        """Return captions as the network reads them: `text` (B, K, D) and what its family adds.

        most_tokens: what they are cut at, where the family leaves that open. Raises UsageError where the text
        encoder is not loaded.
        """
        self._need_text_encoder(texts_of(captions[0])[0])
        pairs = self._text_encoders
        zeros: bool = self.config["force_zeros_for_empty_prompt"]
        reader = TextReader(tuple(t for t, _ in pairs), tuple(e for _, e in pairs), zeros, most_tokens)
        return self.backbone.encode_text(reader, captions, self._execution_device)

    def _need_text_encoder(self, caption: str) -> None:
        if self.text_encoder is None:
            raise UsageError(
                f"The text encoder is not loaded, and the caption {caption[:40]!r} has to be read: give "
                "prompt_embeds, with guidance negative_prompt_embeds too, or load it."
            )

    def encode_pictures(self, pixels: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [-1, 1] as scaled latents (B, C, H, W) float32, the
        encoder's mode.
        """
        device = self._execution_device
        if not len(pixels):
            return torch.zeros(0, *self._latent_shape(*pixels.shape[2:]), device=device)
        return self.backbone.encode_images(self.vae, pixels.to(device))

    def blank_latents(self, height: int, width: int) -> Tensor | None:
        """Return what targets of this size in pixels show in place of reference latents, (1, C, H, W)
        float32 on the pipeline's device; None for zeros (`SetBatch.blank`)."""
        if self.config["targets_show"] == "zeros":
            return None
        return self.encode_pictures(torch.zeros(1, 3, height, width))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Return scaled latents (B, C, H, W) as pictures (B, 3, H, W) float32, about [-1, 1], not clipped."""
        return self.backbone.decode_latents(self.vae, latents)

    def _to_output(self, latents: Tensor, output_type: str) -> Images:
        if output_type == "latent":
            return latents
        made: Images = self.image_processor.postprocess(self.decode_latents(latents), output_type)
        return made

    def _latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = self.vae_scale_factor
        return self.backbone.latent_channels, height // factor, width // factor
