"""Which cells every table needs. A cell is a method sampled in one way; tables share cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from itertools import permutations
from typing import Any, Literal

from experiments.paper_tables import numbers
from experiments.paper_tables.recipe import PaperRecipe, TableKey

Mode = Literal["joint", "text_first", "image_first", "text_only"]
Design = Literal["joint", "cached", "clip", "concatenation", "learned", "joint_clip"]
DREAMBOOTH, CUSTOM_DIFFUSION = "dreambooth", "custom_diffusion"
FITTED = (DREAMBOOTH, CUSTOM_DIFFUSION)
BACKBONE = "backbone"


@dataclass(frozen=True)
class Cell:
    """A method and how it is sampled. method: a training's name, or one of FITTED."""

    method: str
    steps: int
    guidance: float
    references: int = 1
    classes: Literal["known", "held_out"] = "known"
    mode: Mode = "joint"
    image_guidance: float | None = None
    coupling: Literal["joint", "cached"] = "joint"
    null_set: Literal["joint", "single"] = "joint"
    scheduler: str = "model"

    @property
    def name(self) -> str:
        """The folder of its pictures: the method, and what is not as usual."""
        usual = {each.name: each.default for each in fields(self)}
        told = [f"{name}-{value}" for name, value in asdict(self).items() if usual[name] != value]
        return "_".join([self.method, *(each.removeprefix("method-") for each in told[1:])])


@dataclass(frozen=True)
class Training:
    """A method that is trained from the backbone, on `amount` subjects of same-subject sets."""

    design: Design
    amount: int

    @property
    def name(self) -> str:
        return f"{self.design}-{self.amount}"


Rows = dict[str, tuple[Cell, ...]]
"""By the row's name; the cells of one row are averaged."""


class Plan:
    """The rows of every table of a recipe, and the trainings that they need."""

    def __init__(self, recipe: PaperRecipe) -> None:
        self.recipe = recipe
        self.tables: dict[TableKey, Rows] = {key: self._rows(key) for key in recipe.tables}

    @property
    def cells(self) -> list[Cell]:
        """All, each once; those of one method beside each other."""
        wanted = {cell: None for rows in self.tables.values() for cells in rows.values() for cell in cells}
        methods = list(dict.fromkeys(cell.method for cell in wanted))
        return sorted(wanted, key=lambda cell: methods.index(cell.method))

    @property
    def trainings(self) -> list[Training]:
        """Those that the cells and the timing need."""
        amounts, full = self.recipe.data.amounts, self.recipe.data.amounts[-1]
        designs: tuple[Design, ...] = ("joint", "cached", "clip", "concatenation", "learned", "joint_clip")
        every = [Training(design, full) for design in designs]
        every += [Training("joint", amount) for amount in amounts[:-1]]
        wanted = {cell.method for cell in self.cells}
        return [training for training in every if training.name in wanted]

    def method(self, design: Design, amount: int | None = None) -> str:
        """Return the name of a training; on all subjects if not said otherwise."""
        return Training(design, self.recipe.data.amounts[-1] if amount is None else amount).name

    def cell(self, method: str, **changes: Any) -> Cell:
        """Return a method sampled as usual but for the changes."""
        usual: dict[str, Any] = {
            "steps": self.recipe.sampling.steps,
            "guidance": self.recipe.sampling.guidance,
            # Targets are alone in all other methods: a larger null set would change nothing.
            "null_set": "joint" if method.startswith("joint") else "single",
        }
        return Cell(method, **{**usual, **changes})

    def _rows(self, key: TableKey) -> Rows:
        jedi = self.method("joint")
        clip, learned = self.method("clip"), self.method("learned")
        amounts, sweeps = self.recipe.data.amounts, self.recipe.sweeps
        match key:
            case "2" | "9":
                many = 3 if key == "2" else self.recipe.set.inputs
                rows = {
                    numbers.DREAMBOOTH: self.cell(DREAMBOOTH, references=many),
                    numbers.CUSTOM_DIFFUSION: self.cell(CUSTOM_DIFFUSION, references=many),
                }
                if key == "2":
                    rows |= {numbers.BLIP_DIFFUSION: self.cell(clip), numbers.ELITE: self.cell(learned)}
                rows |= {numbers.JEDI_1: self.cell(jedi), numbers.JEDI_3: self.cell(jedi, references=3)}
            case "3":
                names = numbers.TABLES["3"].rows
                rows = {
                    name: self.cell(self.method("joint", amount))
                    for name, amount in zip(names, amounts, strict=True)
                }
            case "4":
                rows = {
                    numbers.CLIP_BASELINE: self.cell(clip),
                    numbers.JEDI: self.cell(jedi),
                    numbers.CLIP_BESIDE: self.cell(self.method("joint_clip")),
                    numbers.NO_GUIDANCE: self.cell(jedi, mode="text_only"),
                }
            case "5":
                methods = {numbers.BLIP_DIFFUSION: clip, numbers.ELITE: learned, numbers.JEDI: jedi}
                rows = {name: self.cell(each, classes="held_out") for name, each in methods.items()}
            case "7":
                rows = {
                    numbers.CLIP_BASELINE: self.cell(clip),
                    numbers.CONCATENATION: self.cell(self.method("concatenation")),
                    numbers.LEARNED: self.cell(learned),
                    numbers.JEDI: self.cell(jedi),
                }
            case "6":
                return {name: tuple(cells) for name, cells in self.strategies().items()}
            case "references":
                rows = {f"{count}": self.cell(jedi, references=count) for count in sweeps.references}
            case "coupling":
                cached = self.method("cached")
                rows = {
                    f"{name}, references: {count}": self.cell(method, references=count, **how)
                    for count in (1, 3)
                    for name, method, how in (
                        ("joint", jedi, {}),
                        ("cached", cached, {"coupling": "cached"}),
                    )
                }
            case "null_set":
                rows = {each: self.cell(jedi, null_set=each) for each in ("joint", "single")}
            case "steps":
                rows = {
                    f"{scheduler}, {steps} steps": self.cell(jedi, steps=steps, scheduler=scheduler)
                    for scheduler in sweeps.schedulers
                    for steps in sweeps.steps
                }
            case "8" | "10":
                rows = {}
        return {name: (cell,) for name, cell in rows.items()}

    def strategies(self) -> dict[str, list[Cell]]:
        """Return the cells of Table 6 and Figure 11: by strategy, in the order of the scales.

        With one scale for both stages eq. 4 is eq. 3. So the two-stage strategies take every two different
        scales, the same for both: what is left between them is the strategy.
        """
        jedi, sweeps = self.method("joint"), self.recipe.sweeps
        two = [{"guidance": text, "image_guidance": image} for text, image in permutations(sweeps.both, 2)]
        how: dict[str, list[dict[str, Any]]] = {
            numbers.TEXT_ONLY: [{"mode": "text_only", "guidance": scale} for scale in sweeps.scales],
            numbers.JOINT: [{"guidance": scale} for scale in sweeps.scales],
            numbers.IMAGE_FIRST: [{"mode": "image_first", **scales} for scales in two],
            numbers.TEXT_FIRST: [{"mode": "text_first", **scales} for scales in two],
        }
        return {name: [self.cell(jedi, **each) for each in ways] for name, ways in how.items()}
