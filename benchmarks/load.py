"""Loading a checkpoint: seconds, and the most main memory above the interpreter's, against the weights' size.

    python -m benchmarks.load --shape 1b --dtype float16
    python -m benchmarks.load --model-path playground/mini_world/base

Without --model-path a random checkpoint of the shape is written for each layout into a temporary folder:
`ours` (safetensors), `original` (pytorch_model.bin, the vision tower inside), and the same weights are opened
by transformers (`hf`). Every loading is a process of its own; the files are in the page cache for all.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import MIB, RESULTS, as_table, environment, median_of, round_to, write_result
from benchmarks.shapes import SHAPES
from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error

DTYPES = ("float32", "float16", "bfloat16")
LAYOUTS = ("ours", "original", "hf")


def parser() -> CommandParser:
    """The command line."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--model-path", default=None, help="a checkpoint of any layout; by default random ones are written")
    add("--shape", choices=tuple(SHAPES), default="1b", help="size of the random checkpoints")
    add("--stored", choices=DTYPES, default="float16", help="type of the random checkpoints")
    add("--dtype", choices=DTYPES, nargs="+", default=["float16", "float32"], help="types that are loaded")
    add("--device", default="cpu", help="where the model goes")
    add("--runs", type=int, default=3, help="loadings of each; the table has their median")
    add("--folder", type=Path, default=None, help="for the random checkpoints; default: a temporary one")
    add("--name", default=None, help="of the result file; default: load-SHAPE")
    return options


def write_checkpoints(shape: str, stored: str, folder: Path) -> dict[str, Path]:
    """Random checkpoints of a shape in each layout; transformers opens a folder of its own."""
    import torch

    from benchmarks.shapes import config_of, fill_randomly
    from benchmarks.training_run import their_config
    from llava.model.builder import new_model
    from llava.model.checkpoint import write_config, write_weights
    from llava.model.key_names import original_table

    config = config_of(SHAPES[shape])
    model = new_model(config, dtype=getattr(torch, stored), attn_implementation=None, empty=True)
    fill_randomly(model, seed=0, device=torch.device("cpu"))
    state = {name: weight.detach() for name, weight in model.named_parameters()}
    ours, original, hf = (folder / name for name in LAYOUTS)
    write_weights(state, ours, tied=config.tie_word_embeddings)
    write_config(config, ours)
    hf.mkdir()
    for file in ours.glob("model*"):
        os.link(file, hf / file.name)
    values = their_config(config).to_dict() | {"dtype": stored}
    (hf / "config.json").write_text(json.dumps(values, default=str), encoding="utf-8")
    original.mkdir()
    table = original_table(config.mm_projector_type)
    torch.save(
        {table.to_disk(name): weight for name, weight in state.items()}, original / "pytorch_model.bin"
    )
    tower = folder / "tower"
    config.vision_config.save_pretrained(tower)
    values = config.text_config.to_dict() | {
        "model_type": "llava_llama",
        "mm_vision_tower": str(tower),
        "mm_projector_type": config.mm_projector_type,
        "mm_vision_select_layer": config.mm_vision_select_layer,
    }
    (original / "config.json").write_text(json.dumps(values, default=str), encoding="utf-8")
    return {"ours": ours, "original": original, "hf": hf}


LOADING = """
import json, sys, time
import torch
from pathlib import Path
from transformers import LlavaForConditionalGeneration
from transformers.models.clip import CLIPVisionModel
from transformers.models.llama import LlamaModel
from benchmarks.record import PeakMemory
from llava.model.builder import build, read_contents

folder, layout, dtype, device = sys.argv[1:]
dtype, device = getattr(torch, dtype), torch.device(device)
peak = PeakMemory()
peak.start()
started = time.perf_counter()
if layout == "hf":
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, device_map=str(device))
else:
    model = build(read_contents(Path(folder)), dtype=dtype, device=device)
seconds = time.perf_counter() - started
size = sum(weight.nbytes for weight in model.parameters())
print(json.dumps({"seconds": seconds, "peak_bytes": peak.above_start(), "weight_bytes": size}))
"""
"""What a loading's process runs."""


def load(folder: Path, layout: str, dtype: str, device: str) -> dict[str, float]:
    """One loading in a process of its own; `UsageError` with its last words when it fails."""
    command = [sys.executable, "-c", LOADING, str(folder), layout, dtype, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"loading {folder} as {layout} failed: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folders: dict[str, Path], dtypes: Sequence[str], device: str, runs: int) -> list[dict]:
    """All layouts and types, in turns."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(runs):
        for layout, folder in folders.items():
            for dtype in dtypes:
                sys.stderr.write(f"run {number + 1}, {layout}, {dtype}\n")
                found.setdefault((layout, dtype), []).append(load(folder, layout, dtype, device))
    return [
        {
            "layout": layout,
            "dtype": dtype,
            "weights_mib": round_to(rows[0]["weight_bytes"] / MIB),
            "seconds": median_of([row["seconds"] for row in rows]),
            "peak_mib": median_of([row["peak_bytes"] / MIB for row in rows]),
            "peak_over_weights": median_of([row["peak_bytes"] / row["weight_bytes"] for row in rows]),
        }
        for (layout, dtype), rows in found.items()
    ]


def table(record: dict) -> str:
    """The result as people read it."""
    header = ("layout", "loaded as", "weights MiB", "seconds", "spread", "peak MiB", "peak / weights")
    rows: list[Sequence[object]] = [header]
    for row in record["rows"]:
        rows.append(
            (
                row["layout"],
                row["dtype"],
                row["weights_mib"],
                row["seconds"]["median"],
                f"{row['seconds']['spread']:.0%}",
                row["peak_mib"]["median"],
                f"{row['peak_over_weights']['median']:.2f}",
            )
        )
    return as_table(rows)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the result."""
    options = parser().parse(argv)
    if options.runs < 1:
        raise UsageError(f"--runs is {options.runs}; it must be at least 1.")
    record = environment(["benchmarks.load", *(sys.argv[1:] if argv is None else argv)])
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        if options.model_path:
            folders = {"ours": Path(options.model_path)}
        else:
            folders = write_checkpoints(options.shape, options.stored, Path(temporary))
        rows = measure(folders, options.dtype, options.device, options.runs)
    record |= {"shape": options.model_path or options.shape, "device": options.device, "rows": rows}
    sys.stdout.write(table(record) + "\n")
    write_result(record, RESULTS / f"{options.name or f'load-{options.shape}'}.json")


if __name__ == "__main__":
    main()
