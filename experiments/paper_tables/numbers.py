"""The paper's own numbers, table by table, as they are printed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CLIP_T, CLIP_I, MCLIP_I, DINO, MDINO = "CLIP-T", "CLIP-I", "MCLIP-I", "DINO", "MDINO"
FIVE = (CLIP_T, CLIP_I, MCLIP_I, DINO, MDINO)
THREE = (DINO, MDINO, CLIP_T)
SECONDS = "seconds a step"


@dataclass(frozen=True)
class PaperTable:
    """rows: by name, a number for each of `scores`; source: where in the paper."""

    title: str
    source: str
    scores: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.scores) for row in self.rows.values()):
            raise ValueError(f"{self.title} has rows that are not {len(self.scores)} numbers long.")

    def column(self, score: str) -> dict[str, float]:
        """Return one score of every row."""
        place = self.scores.index(score)
        return {name: row[place] for name, row in self.rows.items()}


DREAMBOOTH, CUSTOM_DIFFUSION = "DreamBooth", "Custom Diffusion"
BLIP_DIFFUSION, ELITE = "BLIP Diffusion", "ELITE"
JEDI, JEDI_1, JEDI_3 = "JeDi", "JeDi (1 input)", "JeDi (3 inputs)"
CLIP_BASELINE, CONCATENATION, LEARNED = "CLIP baseline", "Concate. baseline", "Learned baseline"
CLIP_BESIDE, NO_GUIDANCE = "(+) CLIP emb", "w/o IG"
TEXT_ONLY, JOINT, IMAGE_FIRST, TEXT_FIRST = "Text only", "Joint", "Image first", "Text first"

TABLES: dict[str, PaperTable] = {
    "2": PaperTable(
        "Table 2: methods",
        "Table 2, section 4.1: DreamBench; finetuning methods with 3 inputs, the others with 1 unless said",
        FIVE,
        {
            DREAMBOOTH: (0.2812, 0.8135, 0.8683, 0.6341, 0.7115),
            CUSTOM_DIFFUSION: (0.3015, 0.7952, 0.8640, 0.6343, 0.7109),
            BLIP_DIFFUSION: (0.2934, 0.7899, 0.8620, 0.5855, 0.6692),
            ELITE: (0.2961, 0.7924, 0.8615, 0.5922, 0.6805),
            JEDI_1: (0.3040, 0.7818, 0.8764, 0.6190, 0.7510),
            JEDI_3: (0.2932, 0.8139, 0.9011, 0.6791, 0.8037),
        },
    ),
    "3": PaperTable(
        "Table 3: size of the S³ data",
        "Table 3, section 4.2: DreamBench, one input, compared with the input",
        THREE,
        {
            "0": (0.8895, 0.8931, 0.2524),
            "0.6M": (0.7501, 0.8639, 0.3020),
            "1.2M": (0.7443, 0.8572, 0.3017),
            "1.6M": (0.7467, 0.8636, 0.3015),
        },
    ),
    "4": PaperTable(
        "Table 4: designs",
        "Table 4, section 4.2: DreamBench, one input, compared with the input",
        THREE,
        {
            CLIP_BASELINE: (0.3411, 0.4394, 0.3325),
            JEDI: (0.7501, 0.8639, 0.3020),
            CLIP_BESIDE: (0.7432, 0.8617, 0.3041),
            NO_GUIDANCE: (0.4652, 0.5922, 0.3259),
        },
    ),
    "5": PaperTable(
        "Table 5: unique subjects",
        "Table 5, section 7.2: the paper's own set, one photo a subject",
        FIVE,
        {
            BLIP_DIFFUSION: (0.2851, 0.8107, 0.8234, 0.6091, 0.6018),
            ELITE: (0.2193, 0.6082, 0.6430, 0.1862, 0.2156),
            JEDI: (0.2856, 0.8697, 0.8838, 0.7934, 0.7926),
        },
    ),
    "6": PaperTable(
        "Table 6: guidance strategies",
        "Table 6, section 7.3: averaged over guidance scales in [1.5, 10], compared with the input",
        THREE,
        {
            TEXT_ONLY: (0.4652, 0.5922, 0.3259),
            JOINT: (0.7268, 0.8384, 0.3013),
            IMAGE_FIRST: (0.6558, 0.7863, 0.3156),
            TEXT_FIRST: (0.7508, 0.8527, 0.2853),
        },
    ),
    "7": PaperTable(
        "Table 7: baselines",
        "Table 7, section 7.3: one input, compared with the input",
        THREE,
        {
            CLIP_BASELINE: (0.3411, 0.4394, 0.3325),
            CONCATENATION: (0.3379, 0.4292, 0.3247),
            LEARNED: (0.7065, 0.7740, 0.3015),
            JEDI: (0.7501, 0.8639, 0.3020),
        },
    ),
    "8": PaperTable(
        "Table 8: identity similarity of the training data",
        "Table 8, section 7.3: S³ beside the real photos of DreamBench",
        (CLIP_I, DINO),
        {"S³ dataset": (0.849, 0.751), "Real images": (0.885, 0.774)},
    ),
    "9": PaperTable(
        "Table 9: all references",
        "Table 9, section 7.3: finetuning methods with all references there are (4 to 6)",
        FIVE,
        {
            DREAMBOOTH: (0.2971, 0.8025, 0.8736, 0.6226, 0.7175),
            CUSTOM_DIFFUSION: (0.3071, 0.7864, 0.8586, 0.6198, 0.7011),
            JEDI_1: (0.3040, 0.7818, 0.8764, 0.6190, 0.7510),
            JEDI_3: (0.2932, 0.8139, 0.9011, 0.6791, 0.8037),
        },
    ),
    "10": PaperTable(
        "Table 10: seconds of one step",
        "Table 10, section 7.3: one diffusion step on one A100",
        (SECONDS,),
        {BLIP_DIFFUSION: (0.0492,), ELITE: (0.0719,), JEDI: (0.0564,)},
    ),
}
"""Table 1 holds no numbers."""
