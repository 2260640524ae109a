"""The table of commands: to add one, write its file beside this one and a line here."""

from typing import NamedTuple


class Command(NamedTuple):
    """`module` of this package has `run(arguments: list[str]) -> None`; `help` is one line."""

    module: str
    help: str


COMMANDS = {
    "generate": Command("generate", "New pictures of a subject from reference photos and prompts."),
    "demo": Command("demo", "The bundled model on subjects it has never seen, or on your photos."),
    "batch": Command("batch", "Many jobs from a file, one a line; goes on where it stopped."),
    "serve": Command("serve", "A page and an OpenAI-compatible API for one model."),
    "doctor": Command("doctor", "What is installed, where models can run; makes one picture as a test."),
    "provenance": Command("provenance", "What pictures say of where they come from: signature, watermark."),
    "train": Command("train", "Train a model by a recipe; goes on where it stopped."),
    "recipes": Command("recipes", "The recipes that come with the package; print one to start from."),
    "synthesize": Command(
        "synthesize", "Make same-subject training sets by a recipe; goes on where it stopped."
    ),
    "synthesize stages": Command(
        "synthesize_stages", "What each stage does to an object or two, in pictures; before a long run."
    ),
    "synthesize report": Command(
        "synthesize_report", "What a synthesis made and how good it is, as one page; Table 8."
    ),
    "data pack": Command("data_pack", "Folders of pictures into shards, or into the paper's set format."),
    "data unpack": Command("data_unpack", "Shards back into folders, or into the paper's set format."),
    "data index": Command("data_index", "Write the indexes that shards are read by."),
    "data check": Command("data_check", "Read every set once and say what is broken."),
    "data encode": Command("data_encode", "Latents and text embeddings beside shards, for faster training."),
    "data show": Command("data_show", "Sets with their captions on a contact sheet."),
    "library add": Command("library_add", "Embed a folder of photos, so that prompts find references."),
    "library search": Command("library_search", "Photos of a library for a prompt, or like another photo."),
    "library show": Command("library_show", "The subjects of a library, and the files that it refused."),
    "evaluate": Command("evaluate", "Compare methods by a recipe: pictures, scores, one page; resumable."),
    "evaluate score": Command(
        "evaluate_score", "Score any program's pictures, on DreamBench or own subjects."
    ),
    "evaluate places": Command("evaluate_places", "Train what tells which place a picture shows."),
    "showroom build": Command(
        "showroom_build", "Cut-outs of real-looking subjects, from downloaded packages."
    ),
    "showroom sets": Command("showroom_sets", "Sets of the showroom as folders of photos, and a sheet."),
    "showroom masks": Command("showroom_masks", "Train the network that finds a photo's subject."),
    "photos score": Command("photos_score", "Score a model on photographed subjects: identity, place."),
    "toybox": Command("toybox", "Write sets of the procedural world: pictures, captions, masks."),
    "toybox score": Command("toybox_score", "Score a model on unseen subjects: identity, prompt, copies."),
    "toybox encoders": Command("toybox_encoders", "Train the scorer's encoders anew, for a changed world."),
}
