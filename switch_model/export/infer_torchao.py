"""Answers texts with the quantized model beside it, in PyTorch: python infer.py "A text" "Another one" """

import argparse
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))  # switch_model lies beside this file.

if __name__ == "__main__":
    from switch_model.export.service import Service
    from switch_model.export.torchao_int8 import open_quantized

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    try:
        for answer in Service(open_quantized(FOLDER)).answer({"inputs": parser.parse_args().texts}):
            print(json.dumps(answer, ensure_ascii=False))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
