"""Compiled decoder layers: one graph for all layers of a model and for batches of all sizes."""

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(language_model: nn.Module, backend: str) -> int:
    """Have every decoder layer compiled by a backend of torch at its first call, in place; returns their
    number.

    Names of weights stay as they are. Sizes are dynamic from the start, so that a batch of another shape
    needs no new graph.
    """
    layers = [part for part in language_model.modules() if isinstance(part, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)
    return len(layers)
