"""A graph of a model -> an ONNX file for any number of texts of any length.

Try it: write_onnx(graphs_of(load_checkpoint("assets/models/ag_news", "cpu")[0])[0], Path("model.onnx"))
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from switch_model.export.graphs import PAST, SOURCE, TEXTS, TOKENS, Graph
from switch_model.export.parity import Runner

# Weights of a file above this size (protobuf's limit is 2 GiB) are written beside it, as <name>.onnx.data.
ONE_FILE = 1_500_000_000
# Sizes of the example that a graph is made of: none is 1, which torch would take for a constant.
EXAMPLE = {TEXTS: 2, TOKENS: 5, PAST: 3, SOURCE: 4}


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a graph, on the CPU, as an ONNX file with its inputs and outputs by name; ids and masks are int64."""
    anything = torch.export.Dim.DYNAMIC
    shapes = [
        {axis: anything for axis, size in enumerate(sizes) if isinstance(size, str)} for sizes in graph.inputs.values()
    ]
    given = tuple(_example(graph, name) for name in graph.inputs)
    named = [name for name in graph.inputs if "." not in name]  # The others come as one group, `*past`.
    several = (tuple(shapes[len(named) :]),) if len(named) < len(shapes) else ()
    size = sum(parameter.numel() * parameter.element_size() for parameter in graph.module.parameters())
    with torch.no_grad(), _quiet():
        program = torch.export.export(graph.module, given, dynamic_shapes=(*shapes[: len(named)], *several))
        torch.onnx.export(
            program,
            f=path,
            dynamo=True,
            verbose=False,
            input_names=list(graph.inputs),
            output_names=graph.outputs,
            external_data=size > ONE_FILE,
        )
    _tidy(path, graph)


def onnx_runner(folder: Path, threads: int = 0) -> Runner:
    """What runs the files of a folder with onnxruntime on the CPU; 0 threads = as many as it chooses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions: dict[str, Any] = {}

    def run(graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if graph.name not in sessions:
            path = folder / f"{graph.name}.onnx"
            sessions[graph.name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        session = sessions[graph.name]
        found = session.run(None, {one.name: inputs[one.name].numpy() for one in session.get_inputs()})
        return {one.name: torch.from_numpy(value) for one, value in zip(session.get_outputs(), found, strict=True)}

    return run


def _example(graph: Graph, name: str) -> Tensor:
    shape = graph.shape(name, EXAMPLE)
    return torch.ones(shape, dtype=torch.long) if "." not in name else torch.zeros(shape)


def _tidy(path: Path, graph: Graph) -> None:
    """Name the dimensions, and remove the notes of torch's exporter: they name folders of this machine."""
    import onnx

    file = onnx.load(path, load_external_data=False)
    body = file.graph
    for noted in (file, body, *body.node, *body.input, *body.output, *body.initializer):
        del noted.metadata_props[:]
    for node in body.node:
        node.doc_string = ""
    del body.value_info[:]  # Shapes in between, which a runtime infers.
    readable = {
        own.dim_param: size
        for value in body.input
        for own, size in zip(value.type.tensor_type.shape.dim, graph.inputs[value.name], strict=True)
        if own.dim_param
    }
    for value in (*body.input, *body.output):
        for own in value.type.tensor_type.shape.dim:
            if own.dim_param:
                own.dim_param = re.sub(r"\w+", lambda found: str(readable.get(found[0], found[0])), own.dim_param)
    path.write_bytes(file.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own remarks on a package that it does not need here (torchvision) and on its old names."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
