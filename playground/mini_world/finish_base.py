"""The last stage of the base model: score it on held-out pictures and wordings, and put it where everybody
finds it.

    python -m playground.mini_world.finish_base --build build --out base

Writes the model in bf16, scores.json (exact match per kind of question, with counts) and the stages' own logs
and scores in log/.
"""

import argparse
import json
import logging
import shutil
from collections import defaultdict
from pathlib import Path

from llava.eval import model_vqa_loader

logger = logging.getLogger("mini_world")

LOGS = {
    "vision_tower_1/scores.json": "vision_tower_1.json",
    "vision_tower/scores.json": "vision_tower_2.json",
    "projector/trainer_state.json": "projector.json",
    "tuned/trainer_state.json": "instruction_tuning_1.json",
    "tuned_2/trainer_state.json": "instruction_tuning_2.json",
    "tuned_3/trainer_state.json": "instruction_tuning_3.json",
    "tuned_4/trainer_state.json": "instruction_tuning_4.json",
}
"""What the stages of build_base.sh left, and what it is called beside the base model."""

GOALS = {
    "scene_shape": 0.95,
    "scene_colour": 0.95,
    "scene_size": 0.95,
    "scene_count": 0.95,
    "person_attribute": 0.93,
    "scene_exist_yes": 0.88,
    "scene_exist_no": 0.88,
    "public_name": 0.95,
    "stranger_name": 0.93,
    "text_sum": 0.98,
    "text_opposite": 0.98,
    "text_colour": 0.98,
    "scene_count_kind": 0.68,
    "scene_relation": 0.41,
    "scene_caption": 0.31,
}
"""What the base should reach; the last three are what a first trial reached."""


def score(answers: Path, truth: Path) -> dict[str, dict[str, object]]:
    """Exact match per split, and per kind within people's attributes."""
    wanted = {row["question_id"]: row for row in map(json.loads, truth.read_text("utf-8").splitlines())}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in map(json.loads, answers.read_text("utf-8").splitlines()):
        entry = wanted[row["question_id"]]
        names = [entry["split"]]
        if entry["split"] == "person_attribute":
            names.append(f"person_attribute/{entry['kind']}")
        for name in names:
            counts[name][0] += 1
            counts[name][1] += row["text"] == entry["answer"]
    return {
        name: {"n": n, "correct": correct, "accuracy": round(correct / n, 4), "goal": GOALS.get(name)}
        for name, (n, correct) in sorted(counts.items())
    }


def as_table(scores: dict[str, dict[str, object]]) -> str:
    """One line per kind of question; a star marks a goal that was missed."""
    lines = []
    for name, row in scores.items():
        goal = "" if row["goal"] is None else f"goal {row['goal']:.2f}"
        missed = " *" if row["goal"] is not None and row["accuracy"] < row["goal"] else ""  # type: ignore[operator]
        lines.append(f"{name:<34}{row['accuracy']:>8.3f}{row['n']:>6}  {goal}{missed}")
    return "\n".join(lines)


def main() -> None:
    """Answer, score, copy."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", type=Path, required=True)
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import torch

    from llava.model.builder import load_pretrained_model
    from llava.model.checkpoint import write_config, write_weights

    tokenizer, model, image_processor, _ = load_pretrained_model(
        str(args.build / "tuned_4"), dtype=torch.float32
    )
    args.out.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.to(torch.bfloat16) for name, weight in model.state_dict().items()}
    write_weights(weights, args.out, tied=model.config.tie_word_embeddings)
    write_config(model.config, args.out)
    tokenizer.save_pretrained(args.out)
    image_processor.save_pretrained(args.out)
    answers = args.build / "base_answers.jsonl"
    for file in (answers, Path(f"{answers}.run.json")):
        file.unlink(missing_ok=True)
    flags = [
        "--model-path",
        str(args.out),
        "--question-file",
        str(args.build / "data/questions/retention.jsonl"),
    ]
    flags += ["--image-folder", str(args.build / "data/images"), "--answers-file", str(answers)]
    model_vqa_loader.main([*flags, "--temperature", "0", "--batch-size", "64", "--max_new_tokens", "48"])
    scores = score(answers, args.build / "data" / "truth.jsonl")
    (args.out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    (args.out / "log").mkdir(exist_ok=True)
    for source, name in LOGS.items():
        if (args.build / source).is_file():
            shutil.copyfile(args.build / source, args.out / "log" / name)
    logger.info(as_table(scores))


if __name__ == "__main__":
    main()
