"""The progress bar of the node that runs. `shown` is what was shown: value, total and preview."""

from typing import Any

shown: list[tuple[int, int, Any]] = []


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total, self.current = total, 0

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.current = value
        shown.append((value, self.total, preview))
