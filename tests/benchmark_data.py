"""Small folders of public benchmarks, in their own layouts and formats, with pictures of the mini world.

Each function writes what a user has after downloading and unpacking: EVAL_DIR/NAME/... as docs/evaluation.md
says. The mini world's base answers the yes-or-no questions (POPE, MME); option letters it never learned.
"""

import base64
import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from playground.mini_world.draw import draw_scene
from playground.mini_world.files import write_json, write_lines
from playground.mini_world.questions import Phrasing, ask_colour, describe_scene
from playground.mini_world.world import COLOURS, SHAPES, sample_scene

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
NUM_ITEMS = 4


@dataclass(frozen=True)
class Item:
    """A picture with a question whose answer is a colour, one to be answered with yes, and one with no."""

    picture: Image.Image
    caption: str
    question: str
    answer: str
    options: tuple[str, ...]
    yes: str
    no: str

    @property
    def letter(self) -> str:
        """The right option's."""
        return "ABCD"[self.options.index(self.answer)]

    def lettered(self, mark: str = "{}. {}") -> list[str]:
        """The options as texts."""
        return [mark.format(letter, text) for letter, text in zip("ABCD", self.options, strict=True)]


def make_items(count: int, seed: str) -> list[Item]:
    """The same for the same seed."""
    rng = random.Random(seed)
    phrasing = Phrasing("train", rng)
    items: list[Item] = []
    while len(items) < count:
        scene = sample_scene(rng)
        asked = ask_colour(scene, phrasing)
        if asked is None:
            continue
        present = {(thing.colour, thing.shape) for thing in scene.things}
        absent = [(colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in present]
        options = [asked.answer, *rng.sample([one for one in COLOURS if one != asked.answer], 3)]
        rng.shuffle(options)
        exist = [
            phrasing.ask("exist", colour=colour, shape=shape)
            for colour, shape in (rng.choice(sorted(present)), rng.choice(absent))
        ]
        items.append(
            Item(draw_scene(scene), describe_scene(scene), asked.text, asked.answer, tuple(options), *exist)
        )
    return items


def save(picture: Image.Image, file: Path) -> str:
    """Write a picture (PNG where the name has no ending, as in SEED-Bench); its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, "JPEG" if file.suffix == ".jpg" else "PNG", quality=95)
    return file.name


def question(question_id: int | str, image: str, text: str, category: str = "default") -> dict[str, object]:
    """A line of a question file."""
    return {"question_id": question_id, "image": image, "text": text, "category": category}


def ten(answer: str, **more: object) -> list[dict[str, object]]:
    """Ten people's answers, of which eight agree."""
    texts = [answer] * 8 + ["unsuitable", "grey"]
    return [{"answer": text, "answer_confidence": "yes", **more} for text in texts]


def write_object(value: object, file: Path) -> None:
    """A JSON object."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def make_vqav2(folder: Path) -> None:
    """Questions of test-dev among those of the whole test; questions and annotations of val2014."""
    items = make_items(NUM_ITEMS, "vqav2")
    rows, asked, annotations = [], [], []
    for number, item in enumerate(items):
        image_id = 262144 + number
        image = save(item.picture, folder / "test2015" / f"COCO_test2015_{image_id:012d}.jpg")
        rows.append(question(image_id * 1000, image, f"{item.question}\n{SHORT}"))
        rows.append(question(image_id * 1000 + 1, image, f"{item.yes}\n{SHORT}"))
        save(item.picture, folder / "val2014" / f"COCO_val2014_{image_id:012d}.jpg")
        for k, (text, answer, kind) in enumerate(
            ((item.question, item.answer, "other"), (item.no, "no", "yes/no"))
        ):
            name = image_id * 1000 + k
            asked.append({"image_id": image_id, "question": text, "question_id": name})
            people = [one | {"answer_id": n} for n, one in enumerate(ten(answer), start=1)]
            annotations.append(
                {"question_type": text.split()[0].lower(), "multiple_choice_answer": answer,
                 "answers": people, "image_id": image_id, "answer_type": kind, "question_id": name}
            )  # fmt: skip
    head = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014", "license": {}}
    write_lines(rows, folder / "llava_vqav2_mscoco_test2015.jsonl")
    write_lines(rows[::2], folder / "llava_vqav2_mscoco_test-dev2015.jsonl")
    write_object(
        head | {"task_type": "Open-Ended", "questions": asked},
        folder / "v2_OpenEnded_mscoco_val2014_questions.json",
    )
    write_object(head | {"annotations": annotations}, folder / "v2_mscoco_val2014_annotations.json")


def make_gqa(folder: Path) -> None:
    """Questions by id, several about one picture."""
    rows, truth = [], {}
    for number, item in enumerate(make_items(NUM_ITEMS, "gqa")):
        image = save(item.picture, folder / "data" / "images" / f"n{161313 + number}.jpg")
        asked = (
            (item.question, item.answer, "query"),
            (item.yes, "yes", "verify"),
            (item.no, "no", "verify"),
        )
        for k, (text, answer, structure) in enumerate(asked):
            name = f"2013072{number}{k}"
            rows.append(question(name, image, f"{text}\n{SHORT}"))
            truth[name] = {
                "imageId": image.removesuffix(".jpg"), "question": text, "answer": answer,
                "fullAnswer": f"It is {answer}.", "isBalanced": True,
                "groups": {"global": None, "local": "10q"}, "entailed": [], "equivalent": [name],
                "types": {"structural": structure, "semantic": "attr", "detailed": "existAttr"},
                "annotations": {"question": {}, "answer": {}, "fullAnswer": {}}, "semantic": [],
                "semanticStr": "",
            }  # fmt: skip
    write_lines(rows, folder / "llava_gqa_testdev_balanced.jsonl")
    write_object(truth, folder / "data" / "testdev_balanced_questions.json")


def make_vizwiz(folder: Path) -> None:
    """Test questions, and validation with ten answers per picture."""
    tests, annotations = [], []
    for number, item in enumerate(make_items(NUM_ITEMS, "vizwiz")):
        text = f"{item.question}\n{UNANSWERABLE}\n{SHORT}"
        image = save(item.picture, folder / "test" / f"VizWiz_test_{number:08d}.jpg")
        tests.append(question(number, image, text))
        image = save(item.picture, folder / "val" / f"VizWiz_val_{number:08d}.jpg")
        annotations.append(
            {"image": image, "question": item.question, "answers": ten(item.answer), "answer_type": "other",
             "answerable": 1}
        )  # fmt: skip
    write_lines(tests, folder / "llava_test.jsonl")
    write_json(annotations, folder / "val.json")


def make_scienceqa(folder: Path) -> None:
    """Problems with and without a picture; one is of another split."""
    rows, problems = [], {}
    for number, item in enumerate(make_items(NUM_ITEMS, "scienceqa")):
        name, has_picture = str(5 + 3 * number), number % 2 == 0
        options = " ".join(item.lettered("({}) {}"))
        text = f"Context: N/A\nQuestion: {item.question}\nOptions: {options}"
        turns = [
            {"from": "human", "value": f"<image>\n{text}" if has_picture else text},
            {"from": "gpt", "value": f"The answer is {item.letter}."},
        ]
        row: dict[str, object] = {"id": name, "conversations": turns}
        if has_picture:
            save(item.picture, folder / "images" / "test" / name / "image.png")
            row["image"] = f"{name}/image.png"
        rows.append(row)
        problems[name] = {
            "question": item.question, "choices": list(item.options),
            "answer": item.options.index(item.answer), "hint": "",
            "image": "image.png" if has_picture else None, "task": "closed choice", "grade": "grade2",
            "subject": "natural science", "topic": "physics", "category": "Colours",
            "skill": "Name a colour", "lecture": "", "solution": "", "split": "test",
        }  # fmt: skip
    problems["1"] = problems[str(rows[0]["id"])] | {"split": "train", "image": None}
    write_json(rows, folder / "llava_test_CQM-A.json")
    write_object(problems, folder / "problems.json")
    write_object({"test": [row["id"] for row in rows], "train": ["1"]}, folder / "pid_splits.json")


def make_textvqa(folder: Path) -> None:
    """Questions known by their picture, with OCR tokens in the prompt."""
    rows, annotations = [], []
    for number, item in enumerate(make_items(NUM_ITEMS, "textvqa")):
        name = f"003a8ae2ef43b9{number:02d}"
        save(item.picture, folder / "train_images" / f"{name}.jpg")
        text = f"{item.question}\nReference OCR token: RED, 7\n{SHORT}"
        rows.append(question(name, f"{name}.jpg", text))
        annotations.append(
            {"question": item.question, "image_id": name, "image_classes": ["Thing"],
             "answers": [one["answer"] for one in ten(item.answer)], "question_id": 34602 + number,
             "question_tokens": item.question.lower().split(), "image_width": 96, "image_height": 96,
             "set_name": "val"}
        )  # fmt: skip
    write_lines(rows, folder / "llava_textvqa_val_v051_ocr.jsonl")
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    write_object(head | {"data": annotations}, folder / "TextVQA_0.5.1_val.json")


def make_pope(folder: Path) -> None:
    """Three categories over the same pictures; the labels' files number their lines from 1."""
    items = make_items(NUM_ITEMS, "pope")
    images = [
        save(item.picture, folder / "val2014" / f"COCO_val2014_{310196 + number:012d}.jpg")
        for number, item in enumerate(items)
    ]
    rows = []
    for category in ("adversarial", "popular", "random"):
        labels = []
        for image, item in zip(images, items, strict=True):
            for text, label in ((item.yes, "yes"), (item.no, "no")):
                rows.append(question(len(rows), image, f"{text}\n{SHORT}", category))
                labels.append({"question_id": len(labels) + 1, "image": image, "text": text, "label": label})
        write_lines(labels, folder / "coco" / f"coco_pope_{category}.json")
    write_lines(rows, folder / "llava_pope_test.jsonl")


MME_TASKS = (
    ("existence", False), ("count", False), ("position", False), ("color", False), ("posters", True),
    ("celebrity", True), ("scene", True), ("landmark", True), ("artwork", True), ("OCR", False),
    ("commonsense_reasoning", False), ("numerical_calculation", False), ("text_translation", False),
    ("code_reasoning", False),
)  # fmt: skip
"""Tasks, and whether their pictures lie in a folder of their own."""


def make_mme(folder: Path) -> None:
    """Two questions per picture in a text file of its name; two layouts, as released."""
    rows, release = [], folder / "MME_Benchmark_release_version"
    items = iter(make_items(len(MME_TASKS), "mme"))
    for task, apart in MME_TASKS:
        item = next(items)
        image = f"{task}/images/0001.jpg" if apart else f"{task}/0001.jpg"
        save(item.picture, release / image)
        texts = release / task / ("questions_answers_YN" if apart else "") / "0001.txt"
        texts.parent.mkdir(parents=True, exist_ok=True)
        pair = ((item.yes, "Yes"), (item.no, "No"))
        lines = [f"{text} Please answer yes or no.\t{label}\n" for text, label in pair]
        texts.write_text("".join(lines), encoding="utf-8")
        rows += [question(image, image, f"{text}\n{SHORT}", task) for text, _ in pair]
    write_lines(rows, folder / "llava_mme.jsonl")


def table_cell(picture: Image.Image) -> str:
    """A picture as MMBench's table holds it."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95)
    return base64.b64encode(stream.getvalue()).decode()


def make_mmbench(folder: Path, split: str = "mmbench_dev_20230712", *, answers: bool = True) -> None:
    """The table; the test split has no right answers."""
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source",
               "l2-category", "comment", "split"]  # fmt: skip
    if not answers:
        columns.remove("answer")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for number, item in enumerate(make_items(NUM_ITEMS, split)):
            options = dict(zip("ABCD", item.options, strict=True))
            table.writerow(
                {"index": 241 + number, "question": item.question, "hint": "", **options,
                 "answer": item.letter, "category": "attribute_recognition" if number % 2 else "image_scene",
                 "image": table_cell(item.picture), "source": "mini", "l2-category": "coarse_perception",
                 "comment": "", "split": "dev"}
            )  # fmt: skip


def make_mmbench_cn(folder: Path) -> None:
    """The Chinese table."""
    make_mmbench(folder, "mmbench_dev_cn_20231003")


def make_seed(folder: Path) -> None:
    """Pictures without an ending, and frames of videos."""
    rows, questions = [], []
    types = {"Scene Understanding": 1, "Instance Identity": 2, "Action Recognition": 10}
    for number, item in enumerate(make_items(NUM_ITEMS, "seed")):
        is_video = number == NUM_ITEMS - 1
        name = f"v{number}" if is_video else str(101669 + number)
        data_id = f"task10_{number}" if is_video else f"1454426_{number}"
        image = f"SEED-Bench-video-image/{name}.png" if is_video else f"SEED-Bench-image/{data_id}"
        save(item.picture, folder / image)
        lines = [item.question, *item.lettered(), LETTER]
        rows.append(question(name, image, "\n".join(lines)))
        choices = dict(zip(("choice_a", "choice_b", "choice_c", "choice_d"), item.options, strict=True))
        questions.append(
            {"answer": item.letter, **choices, "data_id": data_id,
             "data_type": "video" if is_video else "image", "question": item.question, "question_id": name,
             "question_type_id": 10 if is_video else 1 + number % 2}
        )  # fmt: skip
    write_lines(rows, folder / "llava-seed-bench.jsonl")
    write_object({"questions": questions, "question_type": types}, folder / "SEED-Bench.json")


def make_llavabench(folder: Path) -> None:
    """Questions of three kinds, a description per picture, GPT-4's answers."""
    rows, contexts, answers = [], [], []
    for number, item in enumerate(make_items(3, "llavabench")):
        image = save(item.picture, folder / "images" / f"{number + 1:03d}.jpg")
        contexts.append({"id": f"{number + 1:03d}", "image": image, "caption": item.caption})
        for text, kind in ((item.question, "conv"), (item.yes, "detail"), (item.no, "complex")):
            rows.append(question(len(rows), image, text, kind))
            answers.append(
                {"question_id": len(answers), "prompt": text, "text": f"I see {item.caption}.",
                 "answer_id": f"a{len(answers)}", "model_id": "gpt-4", "metadata": {}}
            )  # fmt: skip
    write_lines(rows, folder / "questions.jsonl")
    write_lines(contexts, folder / "context.jsonl")
    write_lines(answers, folder / "answers_gpt4.jsonl")


def make_mmvet(folder: Path) -> None:
    """Reference answers with parts that all must be there or of which one is enough."""
    rows, truth = [], {}
    for number, item in enumerate(make_items(NUM_ITEMS, "mmvet")):
        image = save(item.picture, folder / "images" / f"v1_{number}.png")
        rows.append(question(number, image, item.question))
        truth[f"v1_{number}"] = {
            "imagename": image, "question": item.question,
            "answer": f"{item.answer}<OR>a {item.answer} thing" if number % 2 else item.answer,
            "imagesource": "mini", "capability": ["rec"] if number % 2 else ["rec", "spat"],
        }  # fmt: skip
    write_lines(rows, folder / "llava-mm-vet.jsonl")
    write_object(truth, folder / "mm-vet.json")


QBENCH_NAMES = {"en": ("llvisionqa_dev.json", "llvisionqa_test.json"),
                "zh": ("质衡-问答-验证集.json", "质衡-问答-测试集.json")}  # fmt: skip


def make_qbench(folder: Path) -> None:
    """Questions in English and Chinese over the same pictures; the test split without right answers."""
    rows = []
    for number, item in enumerate(make_items(NUM_ITEMS, "qbench")):
        image = save(item.picture, folder / "images_llvisionqa" / f"{number:05d}.jpg")
        rows.append(
            {"img_path": image, "question": item.question, "candidates": list(item.options),
             "correct_ans": item.answer, "type": number % 3, "concern": number % 4}
        )  # fmt: skip
    for dev, test in QBENCH_NAMES.values():
        write_json(rows, folder / dev)
        write_json([{k: v for k, v in row.items() if k != "correct_ans"} for row in rows], folder / test)


FOLDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "vqav2": ("vqav2", make_vqav2),
    "gqa": ("gqa", make_gqa),
    "vizwiz": ("vizwiz", make_vizwiz),
    "sqa": ("scienceqa", make_scienceqa),
    "textvqa": ("textvqa", make_textvqa),
    "pope": ("pope", make_pope),
    "mme": ("MME", make_mme),
    "mmbench": ("mmbench", make_mmbench),
    "mmbench_cn": ("mmbench_cn", make_mmbench_cn),
    "seed": ("seed_bench", make_seed),
    "llavabench": ("llava-bench-in-the-wild", make_llavabench),
    "mmvet": ("mm-vet", make_mmvet),
    "qbench": ("qbench", make_qbench),
    "qbench_zh": ("qbench", make_qbench),
}
"""Script -> its folder below EVAL_DIR, and what writes that."""


def make_benchmarks(eval_dir: Path, scripts: Sequence[str] = tuple(FOLDERS)) -> None:
    """The folders of scripts; one that two of them share is written once."""
    for folder, make in dict(FOLDERS[name] for name in scripts).items():
        make(eval_dir / folder)
