"""Checkpoints of LLaVA-1.6 and of S2 in the original's layout: read, written, and asked questions."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.conversation import TEMPLATES, render
from llava.errors import UsageError
from llava.eval.model_vqa_loader import main
from llava.model.builder import load_pretrained_model
from llava.model.export import export
from llava.processing import load_image, process_images, tokenizer_image_token
from tests.parity.golden import DATA

FULL = "llava-v1.5-tiny"
TILED = {
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]],
}
PICTURES = ["wide.png", "tall.png", "square64.png", "mid150x100.png"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Copies of the golden models that can be changed."""
    for name in (FULL, "tiny-clip"):
        shutil.copytree(DATA / "models" / name, tmp_path / name)
    return tmp_path


def change(folder: Path, tensors: dict[str, torch.Tensor], **values: object) -> None:
    """Change config.json and replace or add tensors."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
    weights = folder / "model.safetensors"
    save_file(load_file(weights) | tensors, weights)


@pytest.fixture
def tiled(models: Path) -> Path:
    """A LLaVA-1.6 of the original's layout."""
    change(models / FULL, {"model.image_newline": 0.02 * (torch.arange(64.0) - 32)}, **TILED)
    return models / FULL


def write_questions(folder: Path) -> Path:
    """Three questions about each picture, and one about none."""
    texts = ("What color is the picture?", "What is on the left?", "Describe the picture in detail, please.")
    rows = [
        {"question_id": f"{image}-{number}", "image": image, "text": text}
        for number, text in enumerate(texts)
        for image in PICTURES
    ]
    rows.append({"question_id": "none", "text": "Name a color."})
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_answers_do_not_depend_on_the_batch(tiled: Path, tmp_path: Path) -> None:
    """Pictures of different numbers of tiles; the twin calls the model as clients of the original do."""
    questions = write_questions(tmp_path)
    found = {}
    for size in ("1", "16"):
        answers = tmp_path / f"answers-{size}.jsonl"
        options = ["--model-path", str(tiled), "--question-file", str(questions), "--batch-size", size]
        options += ["--image-folder", str(DATA / "images"), "--answers-file", str(answers)]
        main([*options, "--max_new_tokens", "12"])
        rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
        found[size] = {row["question_id"]: row["text"] for row in rows}
    assert found["1"] == found["16"]
    assert len(set(found["1"].values())) > 3, "answers must differ"

    tokenizer, model, processor, _ = load_pretrained_model(str(tiled))
    for image in PICTURES:
        picture = load_image(DATA / "images" / image)
        turns = [("human", "<image>\nWhat color is the picture?"), ("gpt", None)]
        prompt = render(TEMPLATES["v1"], turns).text
        ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")
        assert isinstance(ids, torch.Tensor)
        output = model.generate(
            ids[None],
            images=process_images([picture], processor, model.config),
            image_sizes=[picture.size],
            do_sample=False,
            max_new_tokens=12,
        )
        text = tokenizer.batch_decode(output, skip_special_tokens=True)[0].strip()
        assert text == found["1"][f"{image}-0"]


def test_tiles_go_to_the_originals_layout_only(tiled: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"image_aspect_ratio is 'anyres'.*--to llava"):
        export(str(tiled), None, tmp_path / "hf", to="hf")
    assert export(str(tiled), None, tmp_path / "out", to="llava") <= 1e-6
    written = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert {name: written[name] for name in TILED} == TILED
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(stored["model.image_newline"], 0.02 * (torch.arange(64.0) - 32))


def test_a_newline_too_much_or_too_few_is_named(tiled: Path) -> None:
    change(tiled, {}, mm_patch_merge_type="flat")
    with pytest.raises(UsageError, match=r"1 unexpected \(model.image_newline\)"):
        load_pretrained_model(str(tiled))


def test_pictures_at_several_sizes(models: Path, tmp_path: Path) -> None:
    """S2: the image processor gives the largest size, the projector takes all of them."""
    folder = models / FULL
    wide = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    change(folder, {"model.mm_projector.0.weight": wide}, s2=True, s2_scales="56,112", mm_hidden_size=64)
    _, model, processor, _ = load_pretrained_model(str(folder))
    picture = load_image(DATA / "images" / "wide.png")
    pixels = process_images([picture], processor, model.config)
    assert isinstance(pixels, torch.Tensor)
    assert pixels.shape == (1, 3, 112, 112)
    assert model.encode_images(pixels).shape == (1, 16, 64)
    with pytest.raises(UsageError, match="s2 is True"):
        export(str(folder), None, tmp_path / "hf", to="hf")
    assert export(str(folder), None, tmp_path / "out", to="llava") <= 1e-6
    written = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (written["s2"], written["s2_scales"], written["mm_hidden_size"]) == (True, "56,112", 64)
