"""Whether and where a run keeps what its frozen vision tower sees; see `llava.train.vision_cache`."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from llava.train.arguments import TrainingArguments
from llava.train.ranks_agree import on_first_rank
from llava.train.sample_index import Sample, SampleIndex
from llava.train.starting_model import Start
from llava.train.summary import autocast_type, samples_per_step
from llava.train.vision_cache import (
    FeatureStore,
    Seer,
    Use,
    choose_kind,
    default_folder,
    free_memory,
    keep_in_memory,
    keep_on_disk,
    obstacle_of,
    times_seen,
)

logger = logging.getLogger(__name__)


def kept_features(
    start: Start, samples: Sequence[Sample], load_pixels: Callable[[str], Tensor], args: TrainingArguments
) -> FeatureStore | None:
    """Features of all pictures, computed now, or None to compute them in every step; the log says why.

    `load_pixels` opens a picture, path -> (3, H, W). `UsageError` where --cache_vision_features cannot be
    granted.
    """
    model = start.model
    index = SampleIndex.of(samples)
    use = use_of(start, index, args)
    # the others may see another amount of free memory
    kind, why = on_first_rank(lambda: choose_kind(args.cache_vision_features, use, free_bytes=free_memory()))
    logger.info("Vision features: %s (%s).", "not kept" if kind == "off" else f"kept, {kind}", why)
    if kind == "off":
        return None
    paths = [index.picture_path(number) for number in range(use.num_pictures)]
    seer = Seer(
        model,
        load_pixels,
        args.device,
        autocast=autocast_type(args),
        num_workers=args.dataloader_num_workers,
        show_progress=args.process_index == 0 and not args.disable_tqdm,
    )
    if kind == "memory":
        return keep_in_memory(seer, paths)
    config = model.config
    seeing = [config.mm_vision_select_layer, config.mm_vision_select_feature, config.scales]
    preparing = [start.image_processor.to_dict(), config.image_aspect_ratio]
    folder = Path(args.vision_cache_dir or default_folder())
    return keep_on_disk(seer, paths, folder, *seeing, *preparing)


def use_of(start: Start, index: SampleIndex, args: TrainingArguments) -> Use:
    """What the run would gain from keeping features, and what they would take."""
    model, tower = start.model, start.model.model.vision_tower
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        epochs = args.max_steps * samples_per_step(args) / len(index)
    seen = times_seen(
        index.groups,
        index.num_pictures,
        shared=args.packing == "shared",
        max_branches=args.max_branches,
        epochs=epochs,
    )
    bytes_each = model.num_patches * model.config.vision_width * next(tower.parameters()).element_size()
    return Use(len(index.picture_rows), seen, bytes_each, obstacle_of(tower))
