"""Which versions of Python and of packages made a result; nothing is imported for it."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("llava", "torch", "transformers", "peft", "accelerate", "pillow", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
