"""Turn a training's model_N.pkl into a weights file to ship: half precision, with what a user must know about it.

    python tools/release.py --model ../exp/coco/stg_2/model_80.pkl --out ../../models/sppe/mine.pth

The file holds {"state_dict", "meta"}; meta is plain values: input_size (h, w), sigma, decode, taught (indices of the
points that the training data annotates), note. `demo.py --sppe mine` then uses it.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parents[1])]

import numpy as np
from calibrate import read_table

from SPPE.src.main_fast_inference import load_model
from SPPE.src.utils.files import save_whole
from train import source_roots
from utils.command import complaints
from utils.dataset import build_dataset


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="model_N.pkl; its folder's option.json is read")
    parser.add_argument("--out", type=Path, required=True, help="the .pth to write")
    parser.add_argument("--confidence", type=Path, help="JSON of tools/calibrate.py: expected error of a score")
    parser.add_argument(
        "--face_score", type=float, help="lowest score of a face, see FacePredictor; default: not judged"
    )
    parser.add_argument("--note", default="", help="data, licence: whatever should stay with the file")
    args = parser.parse_args(argv)
    with complaints("release.py"):
        release(args.model, args.out, args.note, args.confidence, args.face_score)


def release(
    model: Path, out: Path, note: str = "", confidence: Path | None = None, face_score: float | None = None
) -> None:
    """Write `out` from `model` and the option.json beside it.

    Raises:
        FileNotFoundError, ValueError: either cannot be read.
    """
    network, trained = load_model(model)
    options = model.with_name("option.json")
    if not options.is_file():
        raise FileNotFoundError(f"no {options}; train.py writes it beside its models")
    opt = json.loads(options.read_text(encoding="utf-8"))
    meta = {
        **trained,
        "sigma": opt["hmGauss"],
        "taught": taught_points(opt),
        "note": note,
    }
    if face_score is not None:
        meta["face_score"] = face_score
    if confidence:
        meta["confidence"] = read_table(confidence)
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_whole({"state_dict": state, "meta": meta}, out)
    parameters = sum(p.numel() for p in network.parameters())
    size = out.stat().st_size / 1e6
    print(f"{out}: {parameters / 1e6:.2f} M parameters, {size:.1f} MB, {len(meta['taught'])} points taught")


def taught_points(opt: dict) -> list[int]:
    """Points that at least one training sample annotates; the others are drawn hollow."""
    sources = source_roots(argparse.Namespace(**opt))
    taught = [(build_dataset(name, root, "train").visible > 0).any(axis=0) for name, root in sources]
    return np.flatnonzero(np.any(taught, axis=0)).tolist()


if __name__ == "__main__":
    main()
