"""The table of commands: to add one, write its file beside this one and a line here."""

from typing import NamedTuple


class Command(NamedTuple):
    """`module` of this package has `run(arguments: list[str]) -> None`; `help` is one line."""

    module: str
    help: str


COMMANDS = {
    "generate": Command("generate", "New pictures of a subject from reference photos and prompts."),
    "demo": Command("demo", "The bundled model on subjects it has never seen, in one picture."),
    "train": Command("train", "Train a model by a recipe; goes on where it stopped."),
    "toybox": Command("toybox", "Write sets of the procedural world: pictures, captions, masks."),
    "toybox score": Command("toybox_score", "Score a model on unseen subjects: identity, prompt, copies."),
    "toybox photos": Command("toybox_photos", "What a model makes of real photos, on one sheet."),
    "toybox encoders": Command("toybox_encoders", "Train the scorer's encoders anew, for a changed world."),
}
