"""An ONNX file -> one with weights in 8 bits; activations are quantized as they come (dynamic quantization).

Try it: quantize(Path("model.onnx"), Path("model-int8.onnx"))
"""

import logging
import tempfile
from pathlib import Path


def quantize(source: Path, target: Path) -> None:
    """Write the file with its embedding tables and the weights of its products in 8 bits, one scale for each."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as scratch:
        # The experts' matrices are slices of one tensor: only after constant folding are they weights of their own.
        folded = Path(scratch) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 3  # It remarks that a file optimized further would suit this machine alone.
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # It recommends a preprocessing that was just done.
        try:
            quantize_dynamic(folded, target, weight_type=QuantType.QInt8)
        finally:
            logger.setLevel(level)
