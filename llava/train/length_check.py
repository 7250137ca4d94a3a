"""Lengths of samples before a training: which rows a length cuts, and what each of them loses.

Whole turns and the end of a torn answer go, from the end, as in the original; a row is refused rather than
cut within a picture.
"""

import sys
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from llava.constants import IGNORE_INDEX
from llava.errors import UsageError
from llava.findings import ERROR, NOTE, Report
from llava.model.locations import find_folder
from llava.processing import Encoded
from llava.tokenizer import load_tokenizer
from llava.train.arguments import DataArguments, ModelArguments
from llava.train.checking import CheckedRows, position_of
from llava.train.conversations import Encoding, encode, samples_that_may_reach
from llava.train.estimating import config_of
from llava.train.recipe import encoding_of
from llava.train.summary import show_sample

COUNTED = 1000
"""Rows, spread over the file, whose tokens are counted for the mean."""


@dataclass(frozen=True)
class Cut:
    """What a length leaves of a sample's answers.

    `whole` ones, tokens of the one that is `torn` (lost, all), how many are `lost`, and the number of
    `targets` left to learn.
    """

    whole: int
    torn: tuple[int, int] | None
    lost: int
    targets: int

    def __str__(self) -> str:
        parts = [f"of {self.whole + (self.torn is not None) + self.lost} answers {self.whole} stay whole"]
        if self.torn:
            parts.append(f"number {self.whole + 1} loses {self.torn[0]} of its {self.torn[1]} tokens")
        if self.lost:
            parts.append(f"{self.lost} {'is' if self.lost == 1 else 'are'} lost")
        return ", ".join(parts)


def cut_of(labels: list[int], max_length: int) -> Cut:
    """What `max_length` leaves of the answers in a sample's labels."""
    whole, torn, lost, end = 0, None, 0, 0
    for learned, run in groupby(label != IGNORE_INDEX for label in labels):
        start, end = end, end + len(list(run))
        if not learned:
            continue
        whole += end <= max_length
        lost += start >= max_length
        if start < max_length < end:
            torn = (end - max_length, end - start)
    return Cut(whole, torn, lost, sum(label != IGNORE_INDEX for label in labels[1:max_length]))


def encoding_for(model_args: ModelArguments, data_args: DataArguments, *, max_length: int) -> Encoding:
    """How a training with these flags makes tokens; only configuration and tokenizer are read.

    `UsageError` as from a training: a folder that is not there, a language model without a vision tower.
    """
    config = config_of(model_args, data_args, cache_dir=None)
    tokenizer = load_tokenizer(find_folder(model_args.model_name_or_path))
    tokenizer.model_max_length = sys.maxsize  # else it warns of rows that are told about here
    return encoding_of(tokenizer, config, model_args, max_length=max_length)


def check_lengths(rows: CheckedRows, encoding: Encoding, report: Report) -> None:
    """Report every row that is longer than the length, with what it loses.

    A picture that does not fit whole, and a file of which no row keeps a target, are errors.
    """
    num_cut, without_target = 0, []
    for position in samples_that_may_reach(rows.index, encoding).tolist():
        try:
            encoded = encode(rows.index[position], encoding, max_length=None)
        except UsageError as error:
            report.add(rows.finding(position, ERROR, "template", str(error)))
            continue
        if len(encoded.input_ids) <= encoding.max_length:
            continue
        num_cut += 1
        if not report_cut(rows, position, encoded, max_length=encoding.max_length, report=report):
            without_target.append(position)
    level = ERROR if len(without_target) == len(rows.rows) else NOTE
    for position in without_target:
        found = f"no token of an answer is left within {encoding.max_length:,} tokens"
        remedy = "raise --model_max_length or shorten the question"
        report.add(rows.finding(position, level, "no target left", f"{found}; {remedy}"))
    report.facts["rows cut"] = num_cut


def report_cut(
    rows: CheckedRows, position: int, encoded: Encoded, *, max_length: int, report: Report
) -> bool:
    """Report what a row loses that is too long; False if it keeps pictures, but no target."""
    found = f"{len(encoded.input_ids):,} tokens, {max_length:,} are kept"
    remedy = "raise --model_max_length"
    if encoded.prefix_length > max_length:
        found = f"{encoded.prefix_length:,} tokens up to its last picture, {max_length:,} are kept"
        report.add(rows.finding(position, ERROR, "picture does not fit", f"{found}; {remedy}"))
        return True
    cut = cut_of(encoded.labels, max_length)
    if not cut.targets:
        return False
    message = f"{found}: {cut}; {remedy} or split the conversation"
    report.add(rows.finding(position, NOTE, "cut by --model_max_length", message))
    return True


def count_lengths(rows: CheckedRows, encoding: Encoding, report: Report) -> None:
    """Mean tokens and targets of rows that are spread over the file, before they are cut."""
    chosen = np.unique(np.linspace(0, len(rows.rows) - 1, COUNTED).astype(int)) if rows.rows else []
    lengths, targets = [], []
    for position in chosen:
        try:
            encoded = encode(rows.index[int(position)], encoding, max_length=None)
        except UsageError:  # told by `check_lengths`
            continue
        lengths.append(len(encoded.input_ids))
        targets.append(sum(label != IGNORE_INDEX for label in encoded.labels))
    if lengths:
        report.facts |= {
            "rows counted": len(lengths),
            "tokens per row": round(float(np.mean(lengths)), 1),
            "most tokens of these": max(lengths),
            "targets per row": round(float(np.mean(targets)), 1),
        }


def show_encoded(rows: CheckedRows, encoding: Encoding, report: Report, wanted: int | None) -> None:
    """Put a sample into the report as it is learned, decoded from its tokens."""
    position = position_of(rows, wanted)
    if position is None:
        return
    try:
        encoded = encode(rows.index[position], encoding, max_length=None)
    except UsageError:  # told by `check_lengths`
        return
    title = f"{rows.rows[position][1]} decoded, targets between ⟦ and ⟧ ({len(encoded.input_ids):,} tokens):"
    report.samples.append((title, show_sample(encoded, encoding.tokenizer)))
