"""The same as `llava.train.train`, for scripts that call it by path: `python llava/train/train_mem.py
...`.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parents[1]), *(entry for entry in sys.path if Path(entry or ".").resolve() != HERE)]

from llava.train.train import train  # noqa: E402

if __name__ == "__main__":
    train()
