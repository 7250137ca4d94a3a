"""The same as `train.py`, under the name that the original's script without flash attention calls by path.

xformers is not needed: torch's own attention is as lean.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("train.py")), run_name="__main__")
