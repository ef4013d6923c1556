"""What a training shows: a JSON line an epoch, tensorboard, and visdom on request."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
from tensorboardX import SummaryWriter

from SPPE.src.utils.epochs import keep_epochs

TRUTH, PREDICTION = (80, 220, 80), (255, 70, 70)  # RGB


def draw_pairs(crops: np.ndarray, points: np.ndarray, truth: np.ndarray, side: int = 256) -> np.ndarray:
    """Each crop twice, prediction (red) beside truth (green), stacked: (n, H, W, 3) uint8 -> (n * side, 2 * side, 3).

    Points and truth (n, K, 2) in crop pixels; nan is not drawn.
    """
    rows = []
    for crop, *sets in zip(crops, points, truth):
        factor = np.array([side / crop.shape[1], side / crop.shape[0]])
        large = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        pair = [_dots(large.copy(), (xy + 0.5) * factor - 0.5, colour) for xy, colour in zip(sets, (PREDICTION, TRUTH))]
        rows.append(np.hstack(pair))
    return np.vstack(rows)


def _dots(picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    for x, y in points[np.isfinite(points).all(axis=1)].round().astype(int):
        cv2.circle(picture, (int(x), int(y)), 2, colour, -1, cv2.LINE_AA)
    return picture


class Watch:
    """Writes each epoch's figures and pictures.

    Args:
        log: file of JSON lines, appended to.
        events: tensorboard folder.
        visdom: what `connect_visdom` gave, or None.
        start: epochs done before; what was told of later ones (before a kill) is dropped.
    """

    def __init__(self, log: Path, events: Path, visdom=None, start: int = 0):
        self.log, self.visdom = log, visdom
        keep_epochs(log, lambda epoch: epoch <= start)
        self.board = SummaryWriter(str(events), purge_step=start + 1 if start else None)

    def epoch(self, number: int, figures: dict[str, dict[str, float]]) -> None:
        """figures: {"train": {"loss": ...}, "val": {...}} of that epoch."""
        flat = {f"{part}/{name}": value for part, values in figures.items() for name, value in values.items()}
        with self.log.open("a", encoding="utf-8") as file:
            told = {name: value if math.isfinite(value) else None for name, value in flat.items()}  # JSON has no NaN
            file.write(json.dumps({"epoch": number, **told}) + "\n")
        for name, value in flat.items():
            self.board.add_scalar(name, value, number)
            part, metric = name.split("/")
            options = {"title": metric, "xlabel": "epoch", "showlegend": True}
            self._show("line", [value], [number], win=metric, name=part, update="append", opts=options)
        self.board.flush()

    def pictures(self, number: int, crops: np.ndarray, points: np.ndarray, truth: np.ndarray) -> None:
        picture = draw_pairs(crops, points, truth)
        self.board.add_image("val/prediction_and_truth", picture, number, dataformats="HWC")
        self._show("image", picture.transpose(2, 0, 1), win="pictures", opts={"title": "prediction, truth"})

    def _show(self, kind: str, *arguments, **options) -> None:
        if self.visdom is None:
            return
        try:
            getattr(self.visdom, kind)(*arguments, **options)
        except Exception as error:  # a server that goes away must not end a training of days
            print(f"visdom is gone ({error}); the training goes on without it")
            self.visdom = None

    def close(self) -> None:
        self.board.close()


def connect_visdom(name: str):
    """A visdom client for the environment of that name.

    Raises:
        ValueError: no server answers on this machine.
    """
    from visdom import Visdom  # imported on request: it starts threads and reads the network's settings

    try:
        return Visdom(env=name, raise_exceptions=True)
    except Exception as error:  # visdom raises what its sockets raise
        raise ValueError(
            "--visdom found no server on this machine; start one with `python -m visdom.server`"
        ) from error
