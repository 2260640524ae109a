"""Where ComfyUI keeps models: the part that our nodes ask for. `FOLDERS` is what it answers."""

FOLDERS: dict[str, list[str]] = {}


def get_folder_paths(folder_name: str) -> list[str]:
    return list(FOLDERS.get(folder_name, []))
