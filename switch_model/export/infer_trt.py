"""Runs the TensorRT engine beside it (bash build_engine.sh makes it): python infer_trt.py "A text" "Another one"

Needs tensorrt, cuda-python, tokenizers and numpy.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


class Engine:
    """A built engine. Raises ValueError for a batch beyond the shapes that it was built for."""

    def __init__(self, path: Path):
        import tensorrt as trt
        from cuda.bindings import runtime

        self.trt, self.cuda = trt, runtime
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise ValueError(f"{path.name} was built for another GPU or TensorRT: build it again.")
        self.context = self.engine.create_execution_context()
        self.stream = self._done(runtime.cudaStreamCreate())

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, values in inputs.items():
            if not self.context.set_input_shape(name, values.shape):
                raise ValueError(f"the engine was not built for {values.shape[0]} texts of {values.shape[1]} tokens.")
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        outputs = {name: self._empty(name) for name in names if name not in inputs}
        buffers, copy = {}, self.cuda.cudaMemcpy
        kinds = self.cuda.cudaMemcpyKind
        try:
            for name, values in {**inputs, **outputs}.items():
                buffers[name] = self._done(self.cuda.cudaMalloc(values.nbytes))
                self.context.set_tensor_address(name, buffers[name])
            for name, values in inputs.items():
                self._done(copy(buffers[name], values.ctypes.data, values.nbytes, kinds.cudaMemcpyHostToDevice))
            if not self.context.execute_async_v3(self.stream):
                raise RuntimeError("TensorRT could not run the engine.")
            self._done(self.cuda.cudaStreamSynchronize(self.stream))
            for name, values in outputs.items():
                self._done(copy(values.ctypes.data, buffers[name], values.nbytes, kinds.cudaMemcpyDeviceToHost))
        finally:
            for buffer in buffers.values():
                self.cuda.cudaFree(buffer)
        return outputs

    def _empty(self, name: str) -> np.ndarray:
        """Room for an output at the inputs' shapes."""
        shape, kind = self.context.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        return np.empty(tuple(shape), self.trt.nptype(kind))

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """What a call of CUDA gave beside its status."""
        status, *values = answer
        if status != self.cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA: {status.name}")
        return values[0] if values else None


def run(folder: Path, texts: list[str]) -> list[dict]:
    from texts import Texts

    reader = Texts(folder)
    inputs = reader.inputs(texts)
    return reader.answers(Engine(folder / "model.plan")(inputs)["logits"], inputs["input_ids"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+")
    try:
        found = run(Path(__file__).resolve().parent, parser.parse_args().texts)
    except FileNotFoundError as error:
        raise SystemExit("error: there is no model.plan here yet: bash build_engine.sh") from error
    except (ImportError, ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    for answer in found:
        print(json.dumps(answer, ensure_ascii=False))
