"""Where a model that a configuration names is: a folder on this machine, or an id on the Hugging Face hub."""

import re
from pathlib import Path

from llava.errors import UsageError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt")


def find_folder(name: str | Path, *, beside: Path | None = None, cache: str | None = None) -> Path:
    """The folder of a name: as a path, then next to the folder `beside`, then as a hub id.

    `cache` is where hub models are kept; the default is the hub's own, see HF_HOME.

    Raises `UsageError` that lists where it was looked for.
    """
    places = [Path(name)]
    if beside is not None:
        places.append(beside.resolve().parent / name)
    for place in places:
        try:
            if place.is_dir():
                return place
        except (OSError, ValueError) as error:
            raise UsageError(f"the model folder {str(name)[:200]!r} cannot be looked at: {error}.") from None
    looked = ", ".join(str(place) for place in places)
    if not HUB_ID.fullmatch(str(name)):
        raise UsageError(
            f"the model folder {str(name)!r} was not found (looked at {looked}); check its path."
        )
    return fetch(str(name), looked, cache)


def fetch(hub_id: str, looked: str, cache: str | None = None) -> Path:
    """The folder of a hub id in the cache, downloaded when it is not there; `UsageError` when that fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(hub_id, cache_dir=cache, allow_patterns=list(FILES)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"the model {hub_id!r} is neither a folder (looked at {looked}) nor could it be fetched from the "
            f"hub: {first_line.rstrip('.')}. Check its name and the network, or name the folder of a copy."
        ) from None
