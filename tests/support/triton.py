"""A stand-in of Triton: config.pbtxt read by protobuf, the utilities of its Python backend, graphs run by onnxruntime.

Its HTTP server speaks the JSON of /v2/models/NAME/infer for inputs of strings.
"""

import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

KINDS = {"string": 9, "int32": 5, "int64": 3, "uint64": 4, "bool": 8}
ENUMS = {
    "DataType": ["TYPE_INVALID", "TYPE_INT64", "TYPE_FP32", "TYPE_STRING"],
    "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU"],
}
# The fields of Triton's ModelConfig that are written here; a star marks one that is repeated.
MESSAGES = {
    "Input": {"name": "string", "data_type": "DataType", "dims": "*int64", "optional": "bool"},
    "Output": {"name": "string", "data_type": "DataType", "dims": "*int64"},
    "Batching": {"preferred_batch_size": "*int32", "max_queue_delay_microseconds": "uint64"},
    "Group": {"kind": "Kind", "count": "int32"},
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "max_batch_size": "int32",
        "input": "*Input",
        "output": "*Output",
        "dynamic_batching": "Batching",
        "instance_group": "*Group",
    },
}


def read_config(path: Path) -> Any:
    """A config.pbtxt as a message; protobuf raises for what Triton would not read."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", syntax="proto3")
    for name, values in ENUMS.items():
        added = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            added.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            plain = kind.removeprefix("*")
            one = message.field.add(name=field, number=number, label=3 if kind != plain else 1)
            one.type = KINDS.get(plain) or (14 if plain in ENUMS else 11)
            if plain not in KINDS:
                one.type_name = plain
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("ModelConfig"))()
    return text_format.Parse(path.read_text(encoding="utf-8"), config)


class Tensor:
    def __init__(self, name: str, values: np.ndarray):
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values


class Response:
    def __init__(self, output_tensors: list[Tensor], error: Any = None):
        self.tensors, self._error = output_tensors, error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Any:
        return self._error


class TritonError:
    def __init__(self, message: str):
        self._message = message

    def message(self) -> str:
        return self._message


def _utilities(repository: Path) -> types.ModuleType:
    """The module that Triton gives to model.py; a request of it runs a graph of the repository."""

    class Request:
        def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any):
            self.model, self.names, self.inputs = model_name, requested_output_names, inputs

        def exec(self) -> Response:
            session = onnxruntime.InferenceSession(repository / self.model / "1" / "model.onnx")
            found = session.run(self.names, {one.name(): one.as_numpy() for one in self.inputs})
            return Response([Tensor(*pair) for pair in zip(self.names, found, strict=True)])

    def named(tensors: list[Tensor], name: str) -> Tensor | None:
        return next((one for one in tensors if one.name() == name), None)

    module = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceRequest, module.InferenceResponse = Tensor, Request, Response
    module.TritonError, module.TritonModelException = TritonError, RuntimeError
    module.TRITONSERVER_MEMORY_CPU, module.PreferredMemory = 0, lambda kind: kind
    module.get_input_tensor_by_name = lambda request, name: named(request.inputs, name)
    module.get_output_tensor_by_name = lambda response, name: named(response.tensors, name)
    return module


class Triton:
    """A model repository, whose model of that name is loaded as Triton does."""

    def __init__(self, repository: Path, name: str):
        sys.modules["triton_python_backend_utils"] = _utilities(repository)
        path = repository / name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("model", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.model = module.TritonPythonModel()
        self.model.initialize({"model_name": name, "model_repository": str(path.parent.parent), "model_version": "1"})

    def ask(self, *requests: dict[str, list[str]]) -> list[list[Any] | str]:
        """Requests (input -> strings), gathered into one batch -> the answers of each, or its error."""
        asked = [
            SimpleNamespace(
                inputs=[
                    Tensor(name, np.array([[one.encode()] for one in strings], object))
                    for name, strings in request.items()
                ]
            )
            for request in requests
        ]
        return [
            one.error().message() if one.has_error() else [json.loads(said) for said in one.tensors[0].as_numpy()[:, 0]]
            for one in self.model.execute(asked)
        ]


@contextmanager
def served(triton: Triton, name: str) -> Iterator[str]:
    """The address at which the model answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
            assert self.path == f"/v2/models/{name}/infer"
            assert all(one["datatype"] == "BYTES" and one["shape"] == [len(one["data"]), 1] for one in asked)
            [answers] = triton.ask({one["name"]: one["data"] for one in asked})
            tensor = {"name": "ANSWER", "datatype": "BYTES", "shape": [len(answers), 1]}
            body = json.dumps({"outputs": [tensor | {"data": [json.dumps(one) for one in answers]}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
