"""Writes text with the model beside it, without torch: python infer.py "Once upon a time" --max_new_tokens 60

The most probable token each time, or --do_sample with --temperature, --top_k, --top_p and --seed, or --num_beams.
"""

import argparse
import json
from pathlib import Path

from writing import PROVIDERS, Writer

SETTINGS = {"max_new_tokens": 60, "num_beams": 1, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("texts", nargs="+")
parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
parser.add_argument("--do_sample", action="store_true")
for name, default in SETTINGS.items():
    parser.add_argument(f"--{name}", type=type(default), default=default)

if __name__ == "__main__":
    given = parser.parse_args()
    try:
        writer = Writer(Path(__file__).resolve().parent, given.provider)
        for text in given.texts:
            print(json.dumps({"generated_text": writer(text, given)}, ensure_ascii=False))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
