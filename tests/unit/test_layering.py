"""Imports point one way, optional packages have one door each, and `import llava` is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "llava"

COMMON = (
    *("tokenizer", "images", "anyres", "constants", "errors", "model_files", "terminal"),
    *("records", "strict_json", "findings", "picture_checks", "file_lock", "durable"),
)
MAY_IMPORT = {
    "model": {"model", "conversation", "chat_template", "processing", "command_line", *COMMON},
    "train": {"train", "model", "conversation", "processing", "command_line", *COMMON},
    "eval": {"eval", "model", "conversation", "processing", "mm_utils", "command_line", *COMMON},
}
"""Parts of the package and what they may import; the modules beside them may import anything but these
three.
"""

DOORWAYS = {("__init__.py", "model")}
"""The package itself names one class of the original, looked up on first use."""

OPTIONAL = (
    "deepspeed",
    "flash_attn",
    "gradio",
    "matplotlib",
    "jinja2",
    "openpyxl",
    "wandb",
    "bitsandbytes",
    "liger_kernel",
    "torchvision",
)


DOORS = {"eval/plots.py": "matplotlib", "eval/sheet.py": "openpyxl"}
"""Modules that are a door as a whole: they hold nothing else, and nobody imports them at the top."""


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all imported modules below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """All files of the package, parsed."""
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def part_of(name: str) -> str | None:
    """`train` for llava.train.recipe, None for other packages."""
    pieces = name.split(".")
    return pieces[1] if pieces[0] == "llava" and len(pieces) > 1 else None


def test_arrows_point_one_way() -> None:
    wrong = []
    for file, tree in modules():
        relative = file.relative_to(PACKAGE)
        part = relative.parts[0] if len(relative.parts) > 1 else None
        allowed = MAY_IMPORT.get(part) if part else None
        for name in imports(tree):
            target = part_of(name)
            if target is None:
                continue
            if allowed is not None and target not in allowed:
                wrong.append(f"{relative} imports {name}")
            if part is None and target in MAY_IMPORT and (str(relative), target) not in DOORWAYS:
                wrong.append(f"{relative} imports {name}")
    assert not wrong


def test_optional_packages_are_imported_where_they_are_needed() -> None:
    doors = {f"llava.{door.removesuffix('.py').replace('/', '.')}" for door in DOORS}
    wrong = []
    for file, tree in modules():
        own = DOORS.get(file.relative_to(PACKAGE).as_posix())
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name for name in imports(node) if name.split(".")[0] != own]
                wrong += [f"{file.name}: {name}" for name in names if name.split(".")[0] in OPTIONAL]
                wrong += [f"{file.name}: {name}" for name in names if name in doors]
    assert not wrong


def test_import_is_cheap() -> None:
    code = (
        "import sys, llava, llava.conversation; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_module_of_train_hides_a_package() -> None:
    """`python llava/train/train_mem.py` puts llava/train first on sys.path."""
    names = {file.stem for file in (PACKAGE / "train").glob("*.py")} - {"__init__"}
    hidden = names & ({"datasets", "peft", "evaluate", "tokenizers"} | set(sys.stdlib_module_names))
    assert not hidden
