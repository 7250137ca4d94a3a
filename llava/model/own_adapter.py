"""Adapters of our own layout: LoRA tensors, and beside them those trained whole (projector, biases).

They are read strictly, and by our own reader: PEFT's follows settings of the file that import other modules.
"""

from pathlib import Path

import torch
from torch import nn

from llava.errors import UsageError
from llava.model.contents import Adapter, read_json
from llava.model.key_names import differences
from llava.model.lora import WRAPPED
from llava.model.stored_tensors import TensorFile, Weights
from llava.model.weight_files import ADAPTER_CONFIG_NAME, adapter_file

LORA_MARK = ".lora_"


def read_own_adapter(folder: Path) -> tuple[Adapter, Weights]:
    """The adapter, and the tensors that replace the base's, by our names; `UsageError` for another method."""
    settings = read_json(folder, ADAPTER_CONFIG_NAME)
    stored = TensorFile(adapter_file(folder)).weights()
    names = {key: key.removeprefix(WRAPPED) for key in stored}
    adapter = stored.renamed({key: name for key, name in names.items() if LORA_MARK in name})
    whole = stored.renamed({key: name for key, name in names.items() if LORA_MARK not in name})
    return Adapter(settings, adapter), whole


def put_whole(model: nn.Module, whole: Weights, *, source: Path) -> None:
    """Replace weights of the model; `UsageError` names one that it does not have in this shape."""
    places = model.state_dict(keep_vars=True)
    fitting = {name: places[name] for name in whole if name in places}
    problem = differences(whole.forms(), fitting)
    if problem:
        raise UsageError(f"the tensors in {source} do not fit its base model: {problem}.")
    with torch.no_grad():
        for name, place in fitting.items():
            place.copy_(whole[name])
