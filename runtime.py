"""Networks run by ONNX Runtime or OpenVINO instead of PyTorch, on the CPU: a graph in, a function of arrays out.

runtime = load_runtime("openvino")
estimator = Estimator(weights, runtime=runtime)    # or FacePredictor(runtime="openvino")

A *graph* is a torch module from uint8 pictures (B, H, W, 3) to tensors, with everything inside that a caller would
else have to repeat (normalisation, decode). It says what a file of it needs to say:
    inputs, outputs     names; free_axes: {axis: name} of the input that may vary
    settings            {name: text} what was chosen when it was built
`SPPE.src.main_fast_inference.Landmarker` and `yolo.detector.Finder` are the two.
"""

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from SPPE.src.utils.device import choose_precision

# 17 is the oldest with all that the graphs use, so that old programs can read the files.
OPSET = 17

# Pictures (B, H, W, 3) uint8 RGB -> the graph's outputs.
Run = Callable[[np.ndarray], list[np.ndarray]]


def to_onnx(graph: nn.Module, example: np.ndarray) -> bytes:
    """The graph as an ONNX file's bytes, its `settings` not yet in it (see export.py).

    example: pictures of the graph's sizes. The trace is taken at a batch of 2, since 1 may be taken for a constant.
    """
    need("onnx", "onnx")
    pictures = torch.from_numpy(np.concatenate([example[:1]] * 2))
    free = {graph.inputs: graph.free_axes} | {name: {0: "batch"} for name in graph.outputs}
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        # The tracing exporter is said to be on its way out, but takes 0.4 s where its successor takes 8, which matters
        # when a command starts; and what it warns of are the size checks, which hold for all sizes that are let in.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (pictures,),
            file,
            dynamo=False,
            input_names=[graph.inputs],
            output_names=list(graph.outputs),
            dynamic_axes=free,
            opset_version=OPSET,
        )
    return file.getvalue()


def need(module: str, package: str):
    """Import a package that only some users have.

    Raises:
        ValueError: it is not there; says what to install.
    """
    try:
        return __import__(module)
    except ImportError as error:
        raise ValueError(f"{package} is not installed ({error}): pip install {package}") from error


def int8_file(weights: Path) -> Path:
    """Where export.py --int8 puts the quantised twin of a weights file."""
    return weights.with_suffix(".int8.onnx")


def origin(graph: nn.Module, weights: Path) -> dict[str, str]:
    """What ties an ONNX file to its weights file and to the graph's settings; stands in its metadata."""
    return {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), **graph.settings}


def read_int8(graph: nn.Module, weights: Path) -> bytes:
    """The bytes of the quantised twin.

    Raises:
        ValueError: there is none, or it was made of other weights or with other settings.
    """
    onnx = need("onnx", "onnx")
    path = int8_file(weights)
    remedy = "make it: python3 export.py --int8 --images FOLDER, with the options of this run"
    if not path.is_file():
        raise ValueError(f"precision int8 needs {path}; {remedy}")
    data = path.read_bytes()
    found = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    for name, value in origin(graph, weights).items():
        if found.get(name) != value:
            raise ValueError(f"{path} has {name} {found.get(name)}, this run {value}; {remedy}")
    return data


class Runtime:
    """Turns graphs into functions. precision: one of the class's, or "auto", the fastest that needs no further file.

    Calls may come from several threads at a time. Each uses as many cores as torch would in that thread
    (`torch.set_num_threads`, OMP_NUM_THREADS), so that a pipeline's threads share the cores in the same way.
    """

    precisions: tuple[str, ...]

    def __init__(self, precision: str = "auto"):
        if precision not in ("auto", *self.precisions):
            choices = ", ".join(("auto", *self.precisions))
            raise ValueError(f"precision {precision!r} is not one of this runtime's: {choices}")
        self.precision = precision

    def __call__(self, graph: nn.Module, example: np.ndarray, weights: str | Path) -> Run:
        """A function that does what the graph does. example: a picture or more of its size; weights: the graph's file.

        Raises:
            ValueError: precision is int8 and no fitting file is beside the weights.
        """
        int8 = self.precision == "int8"
        return self.load(read_int8(graph, Path(weights)) if int8 else to_onnx(graph, example))

    def load(self, data: bytes) -> Run:
        """A function that runs an ONNX file's bytes."""
        raise NotImplementedError


class OnnxRuntime(Runtime):
    """ONNX Runtime; its CPU kernels know fp32 and int8."""

    precisions = ("fp32", "int8")

    def __init__(self, precision: str = "auto"):
        super().__init__(precision)
        self.library = need("onnxruntime", "onnxruntime")

    def load(self, data: bytes) -> Run:
        sessions, lock = {}, threading.Lock()

        def session(threads: int):
            with lock:
                if threads not in sessions:
                    options = self.library.SessionOptions()
                    options.intra_op_num_threads = threads
                    options.log_severity_level = 3  # errors only
                    sessions[threads] = self.library.InferenceSession(data, options, ["CPUExecutionProvider"])
                return sessions[threads]

        def run(pictures: np.ndarray) -> list[np.ndarray]:
            own = session(torch.get_num_threads())
            return own.run(None, {own.get_inputs()[0].name: pictures})

        return run


class OpenVino(Runtime):
    """OpenVINO on the CPU; "auto" is bf16 where the processor multiplies it, else fp32."""

    precisions = ("fp32", "bf16", "int8")

    def __init__(self, precision: str = "auto"):
        super().__init__(precision)
        self.library = need("openvino", "openvino")
        if precision in ("auto", "int8"):  # what int8 leaves over is computed like "auto"
            bf16 = choose_precision("auto", torch.device("cpu")) == torch.bfloat16
            precision = "bf16" if bf16 else "fp32"
        self.hint = {"fp32": "f32", "bf16": "bf16"}[precision]

    def load(self, data: bytes) -> Run:
        return _OpenVinoRun(self, data)

    @cached_property
    def core(self):
        return self.library.Core()


class _OpenVinoRun:
    """A network of OpenVINO, compiled once for each size of picture; single pictures and batches apart.

    A fixed size saves a tenth of the time of a single picture, which is what a camera waits for; batches of all lengths
    share one network. In 8 bits, pictures go one by one: the network for all lengths rounds otherwise, which cost
    0.13 % NME where the fixed one cost 0.04 (OpenVINO 2026.4, 202 validation faces).
    """

    def __init__(self, runtime: OpenVino, data: bytes):
        self.core, self.hint, self.one_by_one = runtime.core, runtime.hint, runtime.precision == "int8"
        self.model = self.core.read_model(data)
        self.compiled, self.lock, self.own = {}, threading.Lock(), threading.local()

    def __call__(self, pictures: np.ndarray) -> list[np.ndarray]:
        batch, *size = pictures.shape
        if self.one_by_one and batch > 1:
            return [np.concatenate(kind) for kind in zip(*(self(pictures[i : i + 1]) for i in range(batch)))]
        key = (1 if batch == 1 else -1, *size, torch.get_num_threads())
        requests = self.own.__dict__.setdefault("requests", {})  # a request serves one call at a time
        if key not in requests:
            requests[key] = self._compile(key).create_infer_request()
        found = requests[key].infer([pictures], share_inputs=True)
        return list(found.values())

    def _compile(self, key: tuple):
        with self.lock:
            if key not in self.compiled:
                *shape, threads = key
                model = self.model.clone()
                model.reshape(shape)
                self.compiled[key] = self.core.compile_model(model, "CPU", self._config(threads))
            return self.compiled[key]

    def _config(self, threads: int) -> dict:
        """One request on `threads` cores; callers of one core each get a stream each and do not wait for others."""
        streams = 1 if threads > 1 else os.cpu_count() or 1
        return {
            "INFERENCE_PRECISION_HINT": self.hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads * streams,
            "ENABLE_CPU_PINNING": False,  # other threads decode pictures on these cores
        }


RUNTIMES: dict[str, type[Runtime] | None] = {"pytorch": None, "onnx": OnnxRuntime, "openvino": OpenVino}


def load_runtime(name: str = "pytorch", precision: str = "auto", device: str = "auto") -> Runtime | None:
    """A runtime by name; None for "pytorch", the networks' own.

    Raises:
        ValueError: unknown name, package not installed, a precision it lacks, or a device other than the CPU.
    """
    if name not in RUNTIMES:
        raise ValueError(f"unknown runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    if name == "pytorch":
        return None
    if device not in ("auto", "cpu"):
        raise ValueError(f"runtime {name!r} runs on the CPU, not on {device!r}; say --device cpu, or --runtime pytorch")
    return RUNTIMES[name](precision)
