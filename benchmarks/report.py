"""A row of the results: what was measured, the ratio, its floor and its aim."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """One ratio.

    Attributes:
        what: what was measured against what.
        value: the ratio.
        floor, aim: the required ratio and the wanted one; None = no goal.
        higher_is_better: whether a larger ratio is better.
        note: absolute sizes, or an explanation of the ratio.
    """

    what: str
    value: float
    floor: float | None = None
    aim: float | None = None
    higher_is_better: bool = False
    note: str = ""

    def reaches(self, goal: float | None) -> bool:
        if goal is None:
            return False
        value = round(self.value, 2)
        return value >= goal if self.higher_is_better else value <= goal

    def row(self) -> str:
        goals = " | ".join("" if goal is None else f"{goal:g}" for goal in (self.floor, self.aim))
        verdict = "aim" if self.reaches(self.aim) else "floor" if self.reaches(self.floor) else "missed"
        return f"| {self.what} | {self.value:.2f} | {goals} | {verdict if self.floor else ''} | {self.note} |"


HEADER = "| metric | measured | floor | aim | reached | |\n|---|---|---|---|---|---|"


def table(measurements: list[Measurement]) -> str:
    return "\n".join([HEADER, *(one.row() for one in measurements)])
