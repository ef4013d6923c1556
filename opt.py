"""The demo's options, AlphaPose's names; building the parser parses nothing."""

import argparse
from pathlib import Path

from SPPE.src.utils.eval import DECODERS

# AlphaPose's options that have no meaning here; published commands that give them still run.
IGNORED = ("mode", "matching", "dataset", "expID", "nThreads", "outputResH", "outputResW", "hmGauss")


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Find 106 facial landmarks on every face of every picture.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument_group("input and output").add_argument
    add(
        "--indir", type=Path, help="folder of pictures (walked), one picture, or a pattern in quotes: 'photos/**/*.jpg'"
    )
    add("--list", type=Path, dest="inputlist", help="text file with a picture a line, relative to --indir or the list")
    add("--image", type=Path, dest="inputimg", help="one picture")
    add(
        "--boxes",
        type=Path,
        help=".json or .csv file of boxes to use instead of the detector's (dataloader.read_boxes)",
    )
    add("--outdir", type=Path, default=Path("examples/outputs"), help="where results go")
    add(
        "--format",
        type=results_format,
        default="alphapose",
        help="of the results: alphapose (or coco, the same), cmu, open, csv, pts, npz",
    )
    add("--save_img", action="store_true", help="write pictures with the points to OUTDIR/vis")
    add("--vis", action="store_true", help="show pictures in a window (needs an OpenCV with one)")
    add("--vis_fast", action="store_true", help="draw points only, faster")
    add("--save_box", action="store_true", help="draw the boxes too")

    add("--resume", action="store_true", help="leave out what an earlier run into the same --outdir has done")

    add = parser.add_argument_group("video").add_argument
    add("--video", dest="videofile", help="video file or network address instead of pictures")
    add("--webcam", help="camera instead of pictures: its number, or what else OpenCV opens")
    add("--save_video", action="store_true", help="write OUTDIR/AlphaPose_NAME.mp4 with the points, and with its sound")
    add(
        "--detect_every", type=int, default=5, help="the detector looks at every so many frames; landmarks lead between"
    )
    add("--smooth", action="store_true", help="steady the points by a One-Euro filter")

    add = parser.add_argument_group("networks").add_argument
    add("--nClasses", type=int, default=106, help="number of landmarks")
    add("--sppe", default="face106-lite", help="landmark weights: a name in models/sppe (duc_se) or a file")
    add("--detector", default="face106-det", help="detector: a name in models/yolo (yolov3-spp) or a .weights file")
    add("--cfg", type=Path, help="the detector's .cfg; default yolo/cfg/NAME.cfg")
    add("--inputResH", type=int, help="height of the crops; default what the weights say")
    add("--inputResW", type=int, help="width of the crops; default what the weights say")
    add("--inp_dim", type=int, help="side of the detector's input, a multiple of 32; default the cfg's")
    add("--conf", type=float, help="lowest score of a box, by the detector alone; default: both networks judge")
    add("--nms", type=float, help="IoU above which of two boxes the weaker goes; default the detector's own")
    add("--fast_inference", type=truth, default=True, help="False: flip test, as AlphaPose says it")
    add("--flip", action="store_true", help="flip test: mean of a crop and its mirror image, twice the time")
    add("--decode", help=f"heatmaps to points: {', '.join(DECODERS)}; default: what the weights say")

    add = parser.add_argument_group("speed").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto, fp32, bf16, fp16; int8 with --runtime")
    add("--runtime", default="pytorch", help="pytorch, or on the CPU onnx or openvino; see doc/export.md")
    add("--detbatch", type=int, default=4, help="pictures a detector step")
    add("--posebatch", type=int, default=80, help="faces a landmark step")
    add("--sp", action="store_true", help="one thread for everything; the same results")
    add("--profile", action="store_true", help="print the time each stage took")

    for name in IGNORED:
        parser.add_argument(f"--{name}", nargs="?", const="True", help=argparse.SUPPRESS)
    return parser


def truth(text: str) -> bool:
    """ "True" or "False" as AlphaPose's users write them."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() in ("true", "1", "yes")


def results_format(text: str) -> str:
    """A value of --format; AlphaPose calls its own format coco."""
    return "alphapose" if text == "coco" else text
