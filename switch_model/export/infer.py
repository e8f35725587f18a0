"""Runs the exported model beside it, without torch: python infer.py "A text" "Another one" --provider cpu"""

import argparse
import json
from pathlib import Path

import onnxruntime
from texts import Texts

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("texts", nargs="+")
parser.add_argument("--provider", choices=PROVIDERS, default="cpu")
given, folder = parser.parse_args(), Path(__file__).resolve().parent
provider = PROVIDERS[given.provider]
if provider not in onnxruntime.get_available_providers():
    raise SystemExit(f"error: this onnxruntime has no {provider}. Install onnxruntime-gpu.")
reader = Texts(folder)
try:
    inputs = reader.inputs(given.texts)
except ValueError as error:
    raise SystemExit(f"error: {error}") from error
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=[provider])
for answer in reader.answers(session.run(["logits"], inputs)[0], inputs["input_ids"]):
    print(json.dumps(answer, ensure_ascii=False))
