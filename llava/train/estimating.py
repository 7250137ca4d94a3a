"""What a training command line would take, without a run; `llava.train.estimate` is the command."""

import logging

import torch

from llava.errors import UsageError
from llava.model.builder import is_llava, is_ours, read_contents
from llava.model.config import LlavaConfig
from llava.model.contents import model_config, own_config
from llava.model.locations import find_folder
from llava.model.vision_tower import read_vision_config
from llava.terminal import say
from llava.tokenizer import load_tokenizer
from llava.train.arguments import DataArguments, ModelArguments, parse_arguments
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset
from llava.train.memory import table
from llava.train.micro_batches import choose_cut, cut_text, first_examples, use_cut
from llava.train.recipe import choose_sampler, encoding_of
from llava.train.samples import read_samples
from llava.train.step_memory import WITH, WITHOUT, estimate_run, memory_for


def run(argv: list[str]) -> None:
    """Print the table for a training command line."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    model_args, data_args, training_args = parse_arguments(argv)
    config = config_of(model_args, data_args, cache_dir=training_args.cache_dir)
    samples = read_samples(data_args.data_path, data_args.image_folder)
    folder = find_folder(model_args.model_name_or_path, cache=training_args.cache_dir)
    max_length = training_args.model_max_length
    encoding = encoding_of(load_tokenizer(folder), config, model_args, max_length=max_length)
    whole = training_args.train_batch_size
    dataset = ConversationDataset(samples, encoding)
    examples = first_examples(choose_sampler(samples, training_args), dataset, whole)
    collator = PackingCollator(training_args.packing, lambda path: torch.empty(0), training_args.pack_tokens)
    room = memory_for(training_args.device, loaded=0)
    cut = choose_cut(examples, collator, config, model_args, training_args, room=room)
    use_cut(cut, training_args)
    columns = {
        title: estimate_run(config, cut.largest, model_args, training_args, checkpointing=title == WITH)
        for title in (WITHOUT, WITH)
    }
    say(
        f"{table(columns)}\nLargest of the first batches: {cut.largest}. {cut_text(cut, whole)}\n"
        f"{training_args.device} has {room / 1e9:.1f} GB free.\n"
    )


def config_of(model_args: ModelArguments, data_args: DataArguments, *, cache_dir: str | None) -> LlavaConfig:
    """The configuration that training would begin with, as far as memory depends on it."""
    folder = find_folder(model_args.model_name_or_path, cache=cache_dir)
    if is_llava(folder):
        if is_ours(folder):
            return own_config(folder)
        return read_contents(folder).config
    if not model_args.vision_tower:
        raise UsageError(
            f"{folder} is a language model without a vision tower; name one with --vision_tower."
        )
    tower = find_folder(model_args.vision_tower, cache=cache_dir)
    return LlavaConfig(
        text_config=model_config(folder),
        vision_config=read_vision_config(tower),
        mm_projector_type=model_args.mm_projector_type,
        mm_vision_select_layer=model_args.mm_vision_select_layer,
        mm_vision_select_feature=model_args.mm_vision_select_feature,
        image_aspect_ratio=data_args.image_aspect_ratio or "square",
    )
