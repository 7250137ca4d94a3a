"""Memory of a training step by part, in place of a run; no weights are read.

    python -m llava.train.estimate TRAINING FLAGS

takes the flags of `llava.train.train` and prints a step with and without gradient checkpointing, for the
largest of the first batches, with the vision tower at work. Every run prints its own.
"""

import sys

from llava.errors import exit_on_usage_error
from llava.train.flags import check_flags


@exit_on_usage_error
def main(argv: list[str] | None = None) -> None:
    """Print the table for a training command line (default: this process's)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    check_flags(argv)

    from llava.train import estimating

    estimating.run(argv)


if __name__ == "__main__":
    main()
