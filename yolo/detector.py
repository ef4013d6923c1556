"""The face (or person) detector as an object: photographs in, boxes out."""

from pathlib import Path

import numpy as np
import torch

from SPPE.src.utils.device import choose_device, choose_precision

from .darknet import Darknet
from .preprocess import letterbox, to_input, unletterbox_boxes
from .util import detections

HERE = Path(__file__).resolve().parent
FACE_CFG = HERE / "cfg" / "face106-det.cfg"
FACE_WEIGHTS = HERE.parent / "models" / "yolo" / "face106-det.weights"

# On the validation scenes (doc/detector.md): precision 0.95 and recall 0.91. Faces of portraits score 0.78 at least,
# and what is taken for a face without being one mostly less than 0.55.
FACE_CONF = 0.55
# From 0.3 to 0.5 the average precision is the same to 0.003; cheeks that touch need room, second boxes none.
FACE_NMS = 0.45
# Where the landmark weights judge too, by their `face_score`, the detector only proposes, from here on.
PROPOSAL_CONF = 0.4
# AlphaPose's, for detectors of persons: low, since poses are judged by pose NMS.
PERSON_CONF, PERSON_NMS = 0.05, 0.6

# A second look at the picture made smaller is for faces from this part of the input's side on; the others are seen
# better by the first.
SECOND_LOOK_FROM = 0.35


class Finder(torch.nn.Module):
    """Squares to the network's rows in one graph, as a `runtime` compiles it and export.py writes it.

    net: a fused Darknet on the CPU. Attributes: `inputs`, `outputs`, `free_axes`, `settings`, see runtime.py.
    """

    inputs, outputs, free_axes = "squares", ("rows",), {0: "batch", 1: "height", 2: "width"}

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.settings = {"cfg": Path(net.cfgfile).name}

    def forward(self, squares):
        """Squares (B, S, S, 3) RGB uint8, S a multiple of net.stride -> (B, N, 5 + C), see Darknet.forward."""
        return self.net(to_input(squares))


class Detector:
    """A Darknet with its weights, ready to detect.

    cfg, weights: paths; device, precision: see SPPE.src.utils.device; conf, nms: thresholds, see yolo.util.detections
    (None: the face detector's, or AlphaPose's for a network of several classes);
    inp_dim: side of the square input (None: the cfg's own), a multiple of its stride;
    class_id: which class is kept; runtime: called with (Finder, example squares, weights), gives what runs in its place
    on arrays, on the CPU and in a precision of its own (None: PyTorch; runtime.py of the root makes one). Raises
    FileNotFoundError, ValueError (with the file's name) for what cannot be used.

    `preprocess`, `forward` and `to_image` are the three stages for a pipeline's threads; calling the object runs them
    in turn.
    """

    def __init__(
        self,
        cfg=FACE_CFG,
        weights=FACE_WEIGHTS,
        device="auto",
        precision="auto",
        conf=None,
        nms=None,
        inp_dim=None,
        class_id=0,
        runtime=None,
    ):
        self.device = choose_device("cpu" if runtime else device)
        self.dtype = torch.float32 if runtime else choose_precision(precision, self.device)
        if not Path(cfg).is_file():
            raise FileNotFoundError(f"{cfg}: no such file; say which network {weights} holds: --cfg, as in yolo/cfg")
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights}: no such file; models/README.md says what goes where")
        net = Darknet(cfg)
        if not 0 <= class_id < net.classes:
            raise ValueError(f"class {class_id} of {cfg}: it has {net.classes}, counted from 0")
        net.load_weights(weights)
        self.inp_dim = net.width if inp_dim is None else int(inp_dim)
        if self.inp_dim <= 0 or self.inp_dim % net.stride:
            raise ValueError(f"an input of {self.inp_dim} pixels: {cfg} needs a multiple of {net.stride}")
        usual_conf, usual_nms = (FACE_CONF, FACE_NMS) if net.classes == 1 else (PERSON_CONF, PERSON_NMS)
        self.conf, self.nms = usual_conf if conf is None else conf, usual_nms if nms is None else nms
        self.class_id = class_id
        self.net = net.fuse().eval().to(self.device, self.dtype, memory_format=torch.channels_last)
        self.run = None
        if runtime:
            example = np.zeros((1, self.inp_dim, self.inp_dim, 3), np.uint8)
            self.run = runtime(Finder(self.net), example, weights)

    def preprocess(self, image):
        """image (H, W, 3) RGB uint8 -> ((inp_dim, inp_dim, 3) RGB uint8, Letterbox). Touches no network: safe in any
        thread.
        """
        return letterbox(image, self.inp_dim)

    @torch.inference_mode()
    def forward(self, squares):
        """Squares (B, inp_dim, inp_dim, 3) RGB uint8, a list or an array -> B tensors (K, 5) on the CPU: x1, y1, x2,
        y2 in pixels of the square and score, by falling score; (0, 5) where nothing is found."""
        if len(squares) == 0:
            return []
        prediction = self._rows(squares)
        if self.net.second_look:
            prediction = torch.cat((prediction, self._second_look(squares)), 1)
        return [found.cpu() for found in detections(prediction, self.conf, self.nms, self.class_id)]

    def _rows(self, squares):
        """Squares (B, S, S, 3) RGB uint8 -> the network's rows (B, N, 5 + C) fp32."""
        if self.run is None:
            return self.net(to_input(squares, self.device, self.dtype))
        return torch.from_numpy(self.run(np.ascontiguousarray(squares))[0])

    def _second_look(self, squares):
        """The same squares seen smaller -> rows like the network's own (B, M, 5 + C), large faces only.

        A face that fills the frame is larger than a small network sees at once.
        """
        stride = self.net.stride
        side = max(1, round(self.inp_dim / self.net.second_look / stride)) * stride
        rows = self._rows([letterbox(square, side)[0] for square in squares])
        rows[..., :4] *= self.inp_dim / side
        rows[..., 4].masked_fill_(rows[..., 2:4].amax(-1) < SECOND_LOOK_FROM * self.inp_dim, 0)
        return rows

    def to_image(self, found, transform):
        """found (K, 5) in pixels of the square -> (K, 5) float32 array in pixels of the image, cut to it."""
        return unletterbox_boxes(found.numpy(), transform)

    def __call__(self, images):
        """A list of images (H, W, 3) RGB uint8 -> a list of (K, 5) float32 arrays: x1, y1, x2, y2 in image pixels,
        score.
        """
        if len(images) == 0:
            return []
        squares, transforms = zip(*(self.preprocess(image) for image in images))
        return [
            self.to_image(found, transform) for found, transform in zip(self.forward(np.stack(squares)), transforms)
        ]
