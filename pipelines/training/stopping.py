"""Which epoch is the best, and when to stop waiting for a better one."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stopping:
    """Early stopping on the validation AUROC, or the score of several tasks; of equal ones the lower validation loss is better.

    Attributes:
        best_epoch: 0 before the first epoch, or where nothing is better than what was judged before it.
        waited: epochs since the best one, in which everything learnt.
    """

    patience: int
    best_epoch: int = 0
    best_auroc: float = -1.0
    best_loss: float = float("inf")
    waited: int = 0

    def after(self, epoch: int, auroc: float, loss: float, *, waits: bool = True) -> Stopping:
        """The state after an epoch (from 1) with this validation AUROC and loss.

        Args:
            waits: False for an epoch in which not everything learns yet, which is no reason to stop.
        """
        if (auroc, -loss) > (self.best_auroc, -self.best_loss):
            return Stopping(self.patience, epoch, auroc, loss)
        return replace(self, waited=self.waited + waits)

    @property
    def stops(self) -> bool:
        return self.waited >= self.patience
