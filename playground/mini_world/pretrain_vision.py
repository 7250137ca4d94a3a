"""The mini world's vision tower: a small CLIP vision model that has seen shapes and people with dense labels.

    python -m playground.mini_world.pretrain_vision --out build/vision_tower

The hidden state that LLaVA reads (the last but one) is taught, per patch, which shape, colour and size it
shows; as a whole, a
person's attributes and fine traits; and, by contrast among look-alikes, who is who. CLIP's last layer stays
as it was drawn.
"""

import argparse
import logging
from pathlib import Path


def read_options() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--steps", type=int, default=1800)
    options.add_argument("--batch-scenes", type=int, default=32, help="scenes per step")
    options.add_argument("--batch-quartets", type=int, default=8, help="quartets of people per step")
    options.add_argument(
        "--start-from", type=Path, default=None, help="tower to go on with, instead of a new one"
    )
    options.add_argument("--learning-rate-scale", type=float, default=1.0)
    options.add_argument("--scenes", type=int, default=9000)
    options.add_argument("--quartets", type=int, default=4000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--processes", type=int, default=2)
    return options.parse_args()


def main() -> None:
    """Read the options and pretrain."""
    args = read_options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from playground.mini_world.vision_pretraining import pretrain

    pretrain(args)


if __name__ == "__main__":
    main()
