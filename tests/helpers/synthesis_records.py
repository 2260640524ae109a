"""Records of a run, written by hand: collages of which it is known what was drawn."""

from collections.abc import Sequence
from typing import Any

Panels = Sequence[tuple[str, int, bool]]
"""Whom each panel shows, in which place (a square of ten pixels each), and whether it is whole."""


def box(place: int, shift: int = 0) -> list[int]:
    return [20 * place + shift, 0, 20 * place + 10 + shift, 10]


def collage(panels: Panels | None, number: int = 0, name: str = "cup") -> dict[str, Any]:
    record = {"kind": "collage", "shard": 0, "object": name, "category": "ware", "collage": number}
    record |= {"prompt": "p", "seed": 1, "model": "m", "look": None}
    if panels is not None:
        drawn = [{"subject": subject, "box": box(place), "whole": whole} for subject, place, whole in panels]
        record["truth"] = {"panels": drawn}
    return record


def picture(number: int, place: int, near: dict[int, float], style: str | None = None) -> dict[str, Any]:
    affinities = {str(other): value for other, value in near.items()}
    steps = [
        {"stage": "collage", "prompt": "p"},
        {"stage": "instance", "box": box(place, shift=1), "score": 0.9},
        {"stage": "group", "affinities": affinities, "threshold": 0.5},
        {"stage": "style", "style": style},
    ]
    return {"instance": number, "steps": steps}


def made_set(
    pictures: Sequence[dict[str, Any]], group: int = 0, number: int = 0, **key: Any
) -> dict[str, Any]:
    record = {"kind": "set", "shard": 0, "object": "cup", "category": "ware", "collage": 0, "seed": 7}
    return {**record, "group": group, "set": number, "pictures": list(pictures), **key}


def rejection(stage: str, reason: str, instance: int | None = None, **more: Any) -> dict[str, Any]:
    record = {"kind": "rejection", "shard": 0, "object": "cup", "category": "ware", "collage": 0}
    number = {} if instance is None else {"instance": instance}
    return {**record, **number, "stage": stage, "reason": reason, "detail": "", **more}


def alone(instance: int, place: int, near: dict[int, float]) -> dict[str, Any]:
    affinities = {str(other): value for other, value in near.items()}
    return rejection("group", "alone", instance, box=box(place), affinities=affinities)


class Written:
    """Stands for an output folder whose records are these."""

    def __init__(self, records: Sequence[dict[str, Any]]) -> None:
        self._records = records

    def records(self) -> Any:
        return iter(self._records)
