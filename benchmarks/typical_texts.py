"""How many texts of other kinds a bundled classifier's notice of unlike texts catches, and how many of its own.

python -m benchmarks.typical_texts ag_news [DATA_DIR]      half a minute; needs ag_news, sst2, imdb and en_hi there
"""

import random
import string
import sys
from pathlib import Path

from switch_model import Predictor
from switch_model.analysis.typical_texts import TypicalTexts
from train.data.loading import load_split
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.formatting import percent

ROOT = Path(__file__).parent.parent
# Evaluated rows that no bundled classifier was trained on.
CLASSIFIED = {"ag_news": "test", "sst2": "validation", "imdb": "test"}
MOST_ROWS = 7_600
SHORT_TEXTS = (
    *("Hi", "hello", "Thanks!", "What is your name?", "ok"),
    *("Good morning", "yes please", "test", "See you tomorrow.", "lol"),
)
LINES_OF_CODE = 8


def kinds_of_texts(data_dir: str | None) -> dict[str, list[str]]:
    """Texts by what they are."""
    found = {}
    for name, split in CLASSIFIED.items():
        rows, _ = load_split(DataSource(name, data_dir, split=split))
        found[f"{name}, {split} rows"] = rows.shuffle(seed=0).select(range(min(MOST_ROWS, len(rows))))["text"][:]
    found["Hindi sentences (en_hi, test)"] = load_pairs(DataSource("en_hi", data_dir, split="test"))["target"][:]
    found["random letters"] = random_letters(200)
    found[f"Python code of this package, {LINES_OF_CODE} lines"] = pieces_of_code(ROOT / "train")
    found["very short texts"] = list(SHORT_TEXTS)
    return found


def random_letters(count: int) -> list[str]:
    """Texts of fifteen words, each of three to eight random letters."""
    draw = random.Random(0)
    return [
        " ".join("".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 8))) for _ in range(15))
        for _ in range(count)
    ]


def pieces_of_code(folder: Path) -> list[str]:
    """Lines from every fifth place in the files of a folder, their heads left out."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        starts = range(20, len(lines) - LINES_OF_CODE, 5 * LINES_OF_CODE)
        found += ["\n".join(lines[start : start + LINES_OF_CODE]) for start in starts]
    return found


def main(model: str, data_dir: str | None = None) -> None:
    folder = ROOT / "assets" / "models" / model
    predictor, typical = Predictor.from_checkpoint(folder, "cpu"), TypicalTexts.at(folder)
    if typical is None:
        sys.exit(f"{folder} has no bounds of its training texts: add them with python -m train calibrate.")
    print(f"{model}: {typical}\n\n| texts | number | said to be unlike |\n|---|---|---|")
    for kind, texts in kinds_of_texts(data_dir).items():
        said = sum(bool(typical.reasons(predictor.read(text).ids, predictor.tokenizer)) for text in texts)
        print(f"| {kind} | {len(texts):,} | {percent(said / len(texts))} |")


if __name__ == "__main__":
    main(*sys.argv[1:3])
