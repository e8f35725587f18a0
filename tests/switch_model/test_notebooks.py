"""The notebooks of docs/notebooks run and draw grids; the widget draws in a browser what the page draws.

`make notebooks` runs them in kernels; here their cells run in this process, but for the one that trains.
"""

import ast
import json
from pathlib import Path

import pytest

from switch_model import MaskFiller, Predictor
from switch_model.grid.widget import module, shown
from tests.support.pages import WORDS, save_tiny_checkpoint, save_tiny_mask_filler

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def last_value(code: str, known: dict):
    """The value of a cell's last expression, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), known)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), known) if last else None


def test_there_are_four_and_none_carries_an_output():
    assert len(NOTEBOOKS) == 4
    for path in NOTEBOOKS:
        assert not [one for one in read(path)["cells"] if one.get("outputs") or one.get("execution_count")], path.name


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "train" not in path.stem], ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_grids(path):
    known: dict = {}
    grids = [shown for code in cells(path) if hasattr(shown := last_value(code, known), "value")]
    assert grids and all(grid.value["tokens"] and grid.value["layers"] for grid in grids)


def test_the_widget_draws_every_cell_and_says_which_was_clicked(new_page, tmp_path):
    predictor = Predictor.from_checkpoint(save_tiny_checkpoint(tmp_path / "model"))
    filler = MaskFiller.from_checkpoint(save_tiny_mask_filler(tmp_path / "filler"))
    results = [predictor(" ".join(WORDS[:5])), filler(f"{WORDS[0]} ___ {WORDS[1]}")]
    page = new_page()
    page.set_content("<body></body>")
    page.evaluate(
        """async ([code, values]) => {
          const { default: widget } = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
          window.looked = [];
          for (const value of values) {
            const model = { get: () => value, set: (name, to) => looked.push([name, to]), save_changes() {}, on() {} };
            widget.render({ model, el: document.body.appendChild(document.createElement("div")) });
          }
        }""",
        [module(), [shown(one) for one in results]],
    )
    drawn = page.locator(".cell[data-t]")
    assert drawn.count() == sum(len(one.traces[0].tokens) * len(one.routing) for one in results)
    drawn.nth(1).click()
    assert page.evaluate("looked") == [["looked", {"token": 0, "layer": 1}]]
