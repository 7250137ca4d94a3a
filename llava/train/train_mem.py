"""The same as `train.py`, under the name that scripts call by path: `torchrun ... llava/train/train_mem.py
...`.

The original turns flash attention on here; attention is a flag now, `--attn_implementation`.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("train.py")), run_name="__main__")
