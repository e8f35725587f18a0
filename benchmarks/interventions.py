"""The cost of interventions: the batched counterfactuals of the Explore tab against one plain prediction.

python -m benchmarks.interventions      a few seconds, with the bundled model
"""

from benchmarks.report import Measurement, table
from benchmarks.serving import ROOT
from benchmarks.timing import compare
from switch_model import Interventions, Predictor
from switch_model.counterfactuals import importance, leave_one_out, what_if

TEXT = (
    "Oil prices climbed to their highest level in two years on Tuesday as traders worried that a strike by platform "
    "workers in Norway would cut exports just as winter demand picks up across Europe and refiners in Asia bid for "
    "more cargoes of light crude from"
)
ROUNDS = 15


def measurements() -> list[Measurement]:
    predictor = Predictor.from_checkpoint(ROOT / "assets" / "models" / "ag_news", "cpu")
    layers = predictor.model.config.sparse_layers
    tokens = len(predictor.token_ids(TEXT))

    contestants = {
        "a plain prediction": lambda: predictor(TEXT),
        "an empty set of changes": lambda: predictor(TEXT, Interventions()),
        "one expert off": lambda: predictor(TEXT, Interventions(ablate={(layers[1], 3)})),
        "what if, one token under 8 experts": lambda: what_if(predictor, TEXT, 0, layers[1]),
        "importance of all 32 experts": lambda: importance(predictor, TEXT),
        "every token left out": lambda: leave_one_out(predictor, TEXT),
    }
    ratios = compare(contestants, "a plain prediction", rounds=ROUNDS)
    plain = ratios.pop("a plain prediction ms")
    found = []
    for what, ratio in ratios.items():
        found.append(
            Measurement(f"{what} / a plain prediction, {tokens} tokens", ratio, note=f"{ratio * plain:.0f} ms")
        )
    return found


if __name__ == "__main__":
    print(table(measurements()))
