"""Between a step's gradient and its optimiser: the ranks agree whether the step is taken, and whether it is
the last.

One exchange of three numbers per step: the signal that a rank received, whether its loss or gradient is not
finite, and which rank's loss it is.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.train.bad_batches import BadStep, save_bad_step
from llava.train.exit_codes import NotFiniteError
from llava.train.ranks_agree import highest
from llava.train.step_progress import StepProgress, named
from llava.train.stop_signals import StoppedBySignal, StopSignals

logger = logging.getLogger(__name__)

MOST_SKIPPED = 3
"""Steps in a row of which the last stops the run, under --on_nonfinite skip."""
SPIKE, MEMORY, FEWEST = 5.0, 50, 10
"""A loss so many times the mean of the last so many steps is logged, once there were a few."""
REMEDY = (
    "look at these rows; lower --learning_rate or --max_grad_norm, use --bf16 instead of --fp16, or leave "
    "such steps out with --on_nonfinite skip"
)


class StepGuard(TrainerCallback):
    """`signals` are those that ask to stop; `tokenizer` shows what was in a bad batch."""

    def __init__(self, progress: StepProgress, tokenizer: Any = None) -> None:
        self.progress, self.tokenizer = progress, tokenizer
        self.signals: StopSignals | None = None
        self.agreed_signal = 0
        self.num_skipped = self.num_in_a_row = 0
        self.recent: deque[float] = deque(maxlen=MEMORY)
        self.begin([], [])

    def begin(self, batches: Sequence[dict[str, Any]], ids: Sequence[Sequence[str]]) -> None:
        """The micro-batches of the next step."""
        self.batches, self.ids = batches, ids
        self.losses: list[Tensor] = []
        self.norm: Any = None

    def keep_loss(self, loss: Tensor) -> Tensor:
        """Note a micro-batch's loss; what is logged has 0 in place of one that is not finite."""
        self.losses.append(loss.detach())
        return torch.nan_to_num(loss.detach(), nan=0.0, posinf=0.0, neginf=0.0)

    def check_before_backward(self, loss: Tensor, args: TrainingArguments, step: int) -> None:
        """For DeepSpeed, which takes the step within the backward pass."""
        self.losses.append(loss.detach())
        self._judge(self._numbers(), args, step)
        self.losses.pop()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        numbers = self._numbers()
        if self._judge(numbers, args, state.global_step + 1):
            kwargs["model"].zero_grad(set_to_none=True)  # weights without a gradient stay
        else:
            self._tell_spike(sum(numbers[:-1]), state.global_step + 1)

    def _judge(self, numbers: list[float], args: TrainingArguments, step: int) -> bool:
        """Whether the step is to be left out; `NotFiniteError` on all ranks where it ends the run."""
        losses, norm = numbers[:-1], numbers[-1]
        bad_loss = not all(map(math.isfinite, losses))
        # with a scaled loss a gradient overflows now and then, and the scaler leaves such steps out
        bad_norm = not math.isfinite(norm) and not args.fp16
        number = self.signals.number if self.signals else 0
        signal, is_bad, rank = highest(
            (number, bad_loss or bad_norm, (self.progress.rank + 1) * bad_loss), args.device
        )
        self.agreed_signal = self.agreed_signal or signal
        if not is_bad:
            self.num_in_a_row = 0
            return False
        bad = BadStep(step, losses, None if self.norm is None else norm, self.batches, self.ids)
        self._refuse(bad, args, rank - 1, is_mine=bad_loss or not rank)
        return True

    def _numbers(self) -> list[float]:
        """The losses and the gradient's norm, fetched from the device at once; no norm counts as 0."""
        norm = 0.0 if self.norm is None else self.norm
        first = self.losses[0] if self.losses else torch.zeros(())
        values = [*self.losses, torch.as_tensor(norm, device=first.device)]
        return torch.stack([value.float().reshape(()) for value in values]).tolist()

    def _refuse(self, bad: BadStep, args: TrainingArguments, rank: int, *, is_mine: bool) -> None:
        """Stop, or leave the step out; ranks whose own batch may be to blame keep it."""
        self.num_in_a_row += 1
        self.num_skipped += 1
        found = f"step {bad.step}: "
        if is_mine:
            several = f"-rank{self.progress.rank}" if self.progress.num_ranks > 1 else ""
            stem = Path(args.output_dir) / f"bad_batch-{bad.step}{several}"
            file = save_bad_step(bad, stem, self.tokenizer)
            who = f"rank {self.progress.rank}, " if several else ""
            losses = ", ".join(f"{loss:.4g}" for loss in bad.losses)
            norm = "" if bad.norm is None else f", gradient norm {bad.norm:.4g}"
            found += f"{who}loss {losses}{norm}, {named(bad.bad_ids)}. The batch is in {file}"
        else:
            found += f"the loss of rank {rank} is not finite, see its message"
        if args.on_nonfinite == "skip" and self.num_in_a_row < MOST_SKIPPED:  # type: ignore[attr-defined]
            logger.warning(
                "%s. The step is left out, the %d. of this run; %d in a row would end it.",
                found,
                self.num_skipped,
                MOST_SKIPPED,
            )
            return
        raise NotFiniteError(
            f"{found}. No checkpoint is written; the last one is as it was. What to do: {REMEDY}."
        )

    def _tell_spike(self, loss: float, step: int) -> None:
        """Log a loss far above the last ones; it may be a hard batch, so nothing else happens."""
        mean = sum(self.recent) / max(1, len(self.recent))
        if len(self.recent) >= FEWEST and loss > SPIKE * mean:
            found = "Step %d: loss %.4g is %.0f times the mean of the last %d steps (%s)."
            ids = [one for ids in self.ids for one in ids]
            logger.warning(found, step, loss, loss / mean, len(self.recent), named(ids))
        self.recent.append(loss)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.agreed_signal:
            control.should_save = True
        self._between(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._between(state, control)

    def _between(self, state: TrainerState, control: TrainerControl) -> None:
        """Ranks exchange what they log; only a checkpoint may take any time."""
        doing = "saving" if control.should_save else "between steps"
        self.progress.enter(doing, step=state.global_step, watched=not control.should_save)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A signal that came meanwhile need not wait for another step."""
        if self._agree_on_signal(args):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A checkpoint is there: if there was a signal, also within the saving, the run ends here."""
        self.progress.enter("after saving", step=state.global_step)
        if self._agree_on_signal(args):
            raise StoppedBySignal(self.agreed_signal)

    def _agree_on_signal(self, args: TrainingArguments) -> int:
        number = self.signals.number if self.signals else 0
        self.agreed_signal = self.agreed_signal or highest((number,), args.device)[0]
        return self.agreed_signal
