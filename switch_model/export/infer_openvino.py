"""Runs the exported model beside it with OpenVINO, without torch: python infer.py "A text" "Another" --device CPU"""

import argparse
import json
from pathlib import Path

import openvino
from texts import Texts

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("texts", nargs="+")
parser.add_argument("--device", default="CPU", help="CPU, GPU, NPU or AUTO")
given, folder = parser.parse_args(), Path(__file__).resolve().parent
reader = Texts(folder)
try:
    inputs = reader.inputs(given.texts)
except ValueError as error:
    raise SystemExit(f"error: {error}") from error
model = openvino.Core().compile_model(folder / "model.xml", given.device, {"INFERENCE_PRECISION_HINT": "f32"})
for answer in reader.answers(model(inputs)["logits"], inputs["input_ids"]):
    print(json.dumps(answer, ensure_ascii=False))
