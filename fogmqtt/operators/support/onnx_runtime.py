"""ONNX Runtime, which runs models that OpenCV cannot load. It is an extra, loaded when it is used.

A session has one thread and no optimisation that depends on the processor, so that equal releases
on equal processors give equal bits. `ORT_ENABLE_EXTENDED` gives the bits of the model as it is
written; the next level, which changes the layout for the processor at hand, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fogmqtt.errors import OperatorError
from fogmqtt.images.spec import Image

#: What to do where the package is missing; it follows the subject of a sentence.
ADVICE: Final = "has no ONNX Runtime: pip install 'fogmqtt[onnx]'"
#: Errors only: warnings about a model go to the standard error of a worker.
_ERRORS: Final = 3

#: A window's pixels, 1 x channels x height x width float32 → the network's outputs.
Run = Callable[[Image], Sequence[Image]]


def session(model: bytes, weights: Mapping[str, bytes]) -> Run:
    """Return what runs a model. `weights` are the contents of its other files, by name.

    Raises OperatorError if the package is missing or cannot load the model. What the function
    raises is an OperatorError, too.
    """
    try:
        import onnxruntime
    except ImportError as problem:
        raise OperatorError(f"engine=onnx: this machine {ADVICE} ({problem})") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS
    version = onnxruntime.__version__
    try:
        if weights:
            contents = list(weights.values())
            options.add_external_initializers_from_files_in_memory(
                list(weights), contents, [len(one) for one in contents]
            )
        made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = made.get_inputs()
    except Exception as problem:  # noqa: BLE001  # its exceptions have no common class
        raise OperatorError(
            f"it is not an ONNX model that ONNX Runtime {version} can load: {_reason(problem)}"
        ) from None
    if len(inputs) != 1 or inputs[0].type != "tensor(float)":
        given = ", ".join(f"{one.name} {one.type}" for one in inputs)
        raise OperatorError(f"it takes {given or 'nothing'}, and not one image of float32")
    name = inputs[0].name

    def run(pixels: Image) -> Sequence[Image]:
        try:
            outputs: Any = made.run(None, {name: pixels})
        except Exception as problem:  # noqa: BLE001  # as above
            raise OperatorError(
                f"ONNX Runtime {version} cannot run it: {_reason(problem)}"
            ) from None
        return list(outputs)

    return run


def _reason(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
