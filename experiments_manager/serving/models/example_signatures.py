"""Classification and regression: signatures that take serialised `Example`s, and replies of classes or values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.protocol.dtypes import kind_of_dtype
from experiments_manager.protocol.status import Code, ServingError, failed_precondition, invalid_argument
from experiments_manager.serving.models.signatures import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    Arrays,
    Model,
    Signature,
    shape_text,
)


@dataclasses.dataclass(frozen=True)
class ExampleTask:
    """One of the two things that are computed of examples.

    Attributes:
        word: `classification` or `regression`.
        method_name: The signature's `method_name`.
        check: Raises a `ServingError` where a signature lacks what the task needs.
        wanted: The outputs that the reply is made of.
        fill: Writes the result from outputs and the number of examples.
    """

    word: str
    method_name: str
    check: Callable[[Signature], None]
    wanted: tuple[str, ...]
    fill: Callable[[Any, Arrays, int], None]

    def outputs_of(self, signature: Signature) -> tuple[str, ...]:
        """Return the outputs to compute."""
        return tuple(name for name in self.wanted if name in signature.outputs)


def _check_classification(signature: Signature) -> None:
    _check_one_input(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_name_of_input(signature, "classification")
    if not {"classes", "scores"} & signature.outputs.keys():
        raise failed_precondition(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature.name} with the outputs {sorted(signature.outputs)}"
        )


def _check_regression(signature: Signature) -> None:
    _check_one_input(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _check_name_of_input(signature, "regression")
    if "outputs" not in signature.outputs:
        raise failed_precondition(
            f"No regression outputs found in SignatureDef: {signature.name} has the outputs {sorted(signature.outputs)}"
        )


def _check_one_input(signature: Signature) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _check_name_of_input(signature: Signature, word: str) -> None:
    if "inputs" not in signature.inputs:
        raise failed_precondition(
            f"No {word} inputs found in SignatureDef: {signature.name} has the inputs {sorted(signature.inputs)}"
        )


def find(model: Model, spec: Any, task: ExampleTask) -> Signature:
    """Find a signature and check that it is made for a task.

    Args:
        model: The model.
        spec: The request's `ModelSpec`, which names it.
        task: What it must be for.

    Raises:
        ServingError: INVALID_ARGUMENT where there is none; INVALID_ARGUMENT or FAILED_PRECONDITION where it is not as
            the task needs it. Its `method_name` counts for nothing, as in TensorFlow Serving by default: TensorFlow 2
            writes that of Predict for every signature.
    """
    name = spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise invalid_argument(f"No signature was found with the name: {name}")
    task.check(signature)
    return signature


def serialize(given: Any) -> np.ndarray:
    """Make the array of serialised examples of an `Input`, each merged with the context if there is one.

    Returns:
        `bytes` objects, shape [examples].

    Raises:
        ServingError: INVALID_ARGUMENT for no examples.
    """
    choice = given.WhichOneof("kind")
    context = b""
    if choice == "example_list":
        given_examples = given.example_list.examples
    elif choice == "example_list_with_context":
        given_examples = given.example_list_with_context.examples
        context = given.example_list_with_context.context.SerializeToString()
    else:
        given_examples = ()
    if not given_examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(given_examples), object)
    array[:] = [context + example.SerializeToString() for example in given_examples]
    return array


def fill_classifications(result: Any, outputs: Arrays, count: int) -> None:
    """Write a `ClassificationResult`.

    Raises:
        ServingError: INVALID_ARGUMENT where the outputs are not as they must be.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for array, name, dtype, text in (
        (classes, "classes", object, "DT_STRING"),
        (scores, "scores", np.float32, "DT_FLOAT"),
    ):
        if array is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if array.dtype != dtype:
            got = kind_of_dtype(array.dtype).enum_name
            raise invalid_argument(f"Expected {name} Tensor of {text}. Got: {got}")
        if array.shape[0] != count:
            raise invalid_argument(f"Expected {name} output batch size of {count}. Got: {array.shape[0]}")
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    width = (scores if classes is None else classes).shape[1]
    for row in range(count):
        row_result = result.classifications.add()
        for column in range(width):
            entry = row_result.classes.add()
            if classes is not None:
                entry.label = _text(classes[row, column])
            if scores is not None:
                entry.score = scores[row, column]


def fill_regressions(result: Any, outputs: Arrays, count: int) -> None:
    """Write a `RegressionResult`.

    Raises:
        ServingError: INVALID_ARGUMENT where the output is not as it must be.
    """
    values = outputs["outputs"]
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{shape_text(values.shape)}"
        )
    if values.shape[0] != count:
        raise invalid_argument(f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}")
    if values.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {kind_of_dtype(values.dtype).enum_name}")
    for value in values.ravel().tolist():
        result.regressions.add(value=value)


CLASSIFICATION = ExampleTask(
    "classification", CLASSIFY, _check_classification, ("classes", "scores"), fill_classifications
)
REGRESSION = ExampleTask("regression", REGRESS, _check_regression, ("outputs",), fill_regressions)


def check_tasks(model: Model, tasks: Sequence[Any]) -> list[tuple[Signature, ExampleTask]]:
    """Find what each task of a `MultiInferenceRequest` asks for.

    Args:
        model: The model of the first task.
        tasks: Its `InferenceTask` messages.

    Raises:
        ServingError: INVALID_ARGUMENT for tasks that cannot be answered together; UNIMPLEMENTED for another method;
            as for `find`.
    """
    tasks_by_method = {kind.method_name: kind for kind in (CLASSIFICATION, REGRESSION)}
    chosen: dict[str, tuple[Signature, ExampleTask]] = {}
    for task in tasks:
        spec = task.model_spec
        if not spec.name:
            raise invalid_argument("Found ModelSpec with an empty model name.")
        if spec.name != tasks[0].model_spec.name:
            raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = spec.signature_name or DEFAULT_SIGNATURE
        if name in chosen:
            raise invalid_argument(f"Duplicate evaluation of signature: {name}")
        if name not in model.signatures:
            raise invalid_argument(f"Requested signature not found in model graph: {name}")
        if task.method_name not in tasks_by_method:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        chosen[name] = (find(model, spec, tasks_by_method[task.method_name]), tasks_by_method[task.method_name])
    return list(chosen.values())


def _text(label: Any) -> str:
    return label.decode("utf-8", errors="replace") if isinstance(label, bytes) else str(label)
