"""Sums over the batches between two lines of metrics."""

from torch import Tensor

from switch_model.analysis.statistics import RoutingTotals
from switch_model.routing import Routing
from train.distributed.processes import Processes


class BatchTotals:
    """Sums over the batches between two lines of metrics; they stay on the device until read."""

    def __init__(self):
        self.routing = RoutingTotals()
        self.correct: Tensor | int = 0
        self.seen = 0
        self.cross_entropy: Tensor | float = 0.0
        self.counted = True

    def add(self, records: tuple[Routing, ...], correct: Tensor | None, seen: int, cross_entropy: Tensor) -> None:
        """`correct` is None if there were no logits."""
        self.routing.add(records)
        self.counted = self.counted and correct is not None
        self.correct = self.correct + (correct if correct is not None else 0)
        self.seen += seen
        self.cross_entropy = self.cross_entropy + seen * cross_entropy

    def over(self, processes: Processes) -> "BatchTotals":
        """The sums of all processes."""
        if processes.count == 1:
            return self
        # As objects: a process may have had no batch at all.
        own = (self.routing.cpu(), int(self.correct), self.seen, float(self.cross_entropy), self.counted)
        whole = BatchTotals()
        for routing, correct, seen, cross_entropy, counted in processes.each(own):
            whole.routing += routing
            whole.correct += correct
            whole.seen += seen
            whole.cross_entropy += cross_entropy
            whole.counted = whole.counted and counted
        return whole

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, 0 to 1."""
        return int(self.correct) / self.seen

    @property
    def nats(self) -> float:
        """Mean cross-entropy per prediction, in nats, without the auxiliary losses."""
        return float(self.cross_entropy) / self.seen
