"""Tensors of weight files, read one at a time: shapes and types are known before, nothing is kept after.

Files are mapped into memory, and the mapping is renewed every `MAPPED_BYTES`: what was read would else stay
in main memory beside the model. Large tensors are therefore copied by `Weights.slices`.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch
from safetensors.torch import load_file
from torch import Tensor

from llava.errors import UsageError

MAPPED_BYTES = 32 << 20


@dataclass(frozen=True)
class Stored:
    """A tensor that may still be on disk: its shape and type as a meta tensor, and what reads it."""

    form: Tensor
    read: Callable[[], Tensor]


class Weights(Mapping[str, Tensor]):
    """Tensors by name; each is read anew when it is asked for. Choosing, renaming and joining read nothing.

    `items()` and `values()` read every tensor, one after the other.
    """

    def __init__(self, entries: Mapping[str, Stored]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __or__(self, other: Mapping[str, Tensor]) -> "Weights":
        """All tensors of both; those of `other` count where names are equal."""
        return Weights(self._entries | as_weights(other)._entries)

    def forms(self) -> dict[str, Tensor]:
        """Shapes and types, as meta tensors."""
        return {name: entry.form for name, entry in self._entries.items()}

    def slices(self, name: str) -> list[slice | EllipsisType]:
        """Parts of a tensor along its first axis, of at most `MAPPED_BYTES` where a row is no larger."""
        form = self._entries[name].form
        if form.nbytes <= MAPPED_BYTES or not form.dim():
            return [...]
        rows = max(1, MAPPED_BYTES * len(form) // form.nbytes)
        return [slice(start, start + rows) for start in range(0, len(form), rows)]

    def renamed(self, names: Mapping[str, str]) -> "Weights":
        """The tensors whose names `names` has, by their new names."""
        return Weights({new: self._entries[old] for old, new in names.items()})


def as_weights(tensors: Mapping[str, Tensor]) -> Weights:
    """Tensors in memory in the same form; they are shared, not copied."""
    if isinstance(tensors, Weights):
        return tensors
    return Weights(
        {name: Stored(tensor.to("meta"), lambda kept=tensor: kept) for name, tensor in tensors.items()}
    )


class TensorFile:
    """One weight file, mapped; `UsageError` when it is not there or holds no tensors."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tensors = read_tensors(file)
        self._num_bytes = 0
        self._is_mapped = can_be_mapped(file)

    def read(self, name: str) -> Tensor:
        """A tensor within the mapped file; it holds the mapping until it is given up itself."""
        if self._is_mapped and self._num_bytes > MAPPED_BYTES:
            self._tensors = read_tensors(self.file)
            self._num_bytes = 0
        tensor = self._tensors[name]
        self._num_bytes += tensor.nbytes
        return tensor

    def weights(self) -> Weights:
        """All tensors by their names on disk."""
        return Weights(
            {
                name: Stored(tensor.to("meta"), lambda name=name: self.read(name))
                for name, tensor in self._tensors.items()
            }
        )


def can_be_mapped(file: Path) -> bool:
    """safetensors, and `.bin` files of torch 1.6 or newer; older ones are no archives and are read whole."""
    return file.suffix == ".safetensors" or zipfile.is_zipfile(file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or `.bin` file, on the CPU, mapped where possible; no pickled code is
    run.
    """
    if not file.is_file():
        raise UsageError(f"{file.parent} has no {file.name}; the checkpoint is not complete.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return read_bin(file)
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged or forged file makes of the two libraries
        first_line = str(error).partition("\n")[0][:300]
        raise UsageError(
            f"{file} holds no tensors that can be read safely: {first_line} ({type(error).__name__}); get "
            "the weights as safetensors, or the file again."
        ) from None


def read_bin(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of `torch.save`, without running pickled code and without unpacking more bytes
    than it has. `UsageError` for anything in it that is no tensor.
    """
    is_archive = zipfile.is_zipfile(file)
    if is_archive:
        with zipfile.ZipFile(file) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
        if packed:
            raise UsageError(
                f"{file} is compressed ({packed[0]}), which torch.save never does; get it again."
            )
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds {type(found).__name__}; a dictionary of tensors was wanted.")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise UsageError(f"{file} holds {name!r}: {type(value).__name__}; names and tensors were wanted.")
        if value.nbytes > value.untyped_storage().nbytes():
            raise UsageError(
                f"{file}: {name} claims {value.nbytes:,} bytes and has {value.untyped_storage().nbytes():,}."
            )
    return found
