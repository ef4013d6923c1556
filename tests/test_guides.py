"""Commands of the README and the guides: every option exists, and guides that end soon are run as they stand."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import av
import pytest

from conftest import ROOT
from predictor import FacePredictor
from SPPE.src.utils.imread import load_image

PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("doc/**/*.md")])
TRAINING = Path("train_sppe/src")

# What makes a command of a guide end soon; options given twice count as given last.
SHORTER = {
    "train.py": "--nEpochs 1 --trainIters 2 --trainBatch 2",
    "dpg.py": "--clusters 1",
}
# What no test can run: a window, a server, a camera, another network's packages, or data that is not there.
NOT_RUN = ("tensorboard", "pip ", "visdom", "webcam", "my.pth", "bench/", "...", "tools/look.py")


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks, continued ones joined, comments gone, its variables put in."""
    lines, variables = [], {}
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in () if language else re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if set_ := re.fullmatch(r'([A-Z]+)="(.*)"', line):
                variables[set_[1]] = set_[2]
            elif line:
                lines.append(re.sub(r"\$([A-Z]+)\b", lambda m: variables.get(m[1], m[0]), line))
    return lines


def program(line: str) -> tuple[tuple[str, ...], list[str]] | None:
    """A python command -> (folder and script, or -m and module), its arguments; None for anything else."""
    words = [word for word in shlex.split(line) if word != "..."]
    if not words or not re.fullmatch(r"(.*/)?python3?|torchrun", words[0]):
        return None
    if words[0] == "torchrun":
        words = words[next(i for i, word in enumerate(words) if word.endswith(".py")) - 1 :]
    if words[1] == "-m":
        return ("-m", words[2]), words[3:]
    script = words[1].removeprefix("../../")
    folder = next((f for f in (Path(), TRAINING) if (ROOT / f / script).is_file()), None)
    assert folder is not None, f"{line}: no such script"
    return (str(folder), script), words[2:]


# Runs programs up to where they have parsed their arguments, once for each list of them. Each has a process of its own,
# since folders have modules of one name; what all of them import is there before.
PARSE = """
import argparse, json, os, runpy, sys
import cv2, h5py, matplotlib.pyplot, scipy.optimize, torch, torchvision, tqdm
import pathlib
class Parsed(Exception): pass
there = pathlib.Path.exists
def parse(self, args=None, namespace=None):
    pathlib.Path.exists = lambda path, **options: True  # files that stand for the reader's own are not
    try:
        original(self, args, namespace)
    finally:
        pathlib.Path.exists = there
    raise Parsed
original, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, parse
def run(place, name, commands):
    os.chdir("." if place == "-m" else place)
    sys.path.insert(0, os.path.dirname(os.path.abspath(name)) if place != "-m" else os.getcwd())
    for arguments in commands:
        sys.argv = [name, *arguments]
        try:
            runpy.run_module(name, run_name="__main__") if place == "-m" else runpy.run_path(name, run_name="__main__")
        except Parsed:
            continue
        except SystemExit:
            print(name, *arguments, file=sys.stderr)
for program in json.load(sys.stdin):
    if os.fork() == 0:
        run(*program)
        os._exit(0)
    if os.wait()[1]:
        print("Error:", *program[:2], file=sys.stderr)
"""


def test_every_option_exists():
    commands = defaultdict(list)
    for page in PAGES:
        for line in shell_lines(page):
            if (found := program(line)) and found[1] not in commands[found[0]]:
                commands[found[0]].append(found[1])
    own = [(*where, lists) for where, lists in commands.items() if where[0] != "-m" or where[1].startswith("yolo")]
    assert len(own) > 15
    told = subprocess.run(
        [sys.executable, "-c", PARSE], cwd=ROOT, input=json.dumps(own), capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert not re.search(r"error:|Error", told.stderr), told.stderr


@pytest.mark.parametrize("page", sorted(ROOT.glob("doc/zh/*.md")), ids=lambda page: page.name)
def test_chinese_guides_have_the_same_commands(page):
    assert shell_lines(page) == shell_lines(ROOT / "doc" / page.name)


def test_python_of_the_api_guide(monkeypatch):
    pytest.importorskip("supervision")
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "doc" / "api.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    exec("\n".join(blocks), {})


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project with a reader's data: pictures with labels, a clip, a data set under the guides' names."""
    root = tmp_path_factory.mktemp("guides") / "checkout"
    leave_out = shutil.ignore_patterns(".*", "data", "exp", "runs", "outputs", "__pycache__", "tests")
    shutil.copytree(ROOT, root, ignore=leave_out)
    predictor, pictures = FacePredictor(device="cpu"), sorted((ROOT / "examples" / "imgs").glob("*.jpg"))
    rows = ["image," + ",".join(f"x{i},y{i}" for i in range(106))]
    (root / TRAINING / "images").mkdir()
    for picture in pictures:
        points = ",".join(f"{value:.2f}" for value in predictor(picture)[0].landmarks.ravel())
        for copy in range(3):  # enough for a few to validate on
            shutil.copy(picture, root / TRAINING / "images" / f"{copy}{picture.name}")
            rows.append(f"{copy}{picture.name},{points}")
    (root / TRAINING / "labels.csv").write_text("\n".join(rows))
    shutil.copytree(ROOT / "examples" / "imgs", root / "my_photographs")
    with av.open(str(root / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=10)
        frame = av.VideoFrame.from_ndarray(load_image(pictures[0])[:480, :480].copy())
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
        for packet in (*(p for _ in range(3) for p in stream.encode(frame)), *stream.encode()):
            clip.mux(packet)
    return root


def run_guide(page: Path, folder: Path) -> None:
    """Run a guide's commands one after the other in one shell.

    Raises:
        AssertionError: one failed; with what it printed.
    """
    script = ["set -e", f'PATH="{Path(sys.executable).parent}:$PATH"']
    for line in shell_lines(page):
        if any(word in line for word in NOT_RUN) or not line.startswith("python"):
            continue
        extra = next((more for name, more in SHORTER.items() if name in line), "")
        script.append(f"echo '$ {line}'; {line} {extra}")
    assert len(script) > 3
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]


@pytest.fixture(scope="module")
def own_data(checkout) -> Path:
    """The checkout after the guide to one's own data, which has trained `mine`."""
    run_guide(ROOT / "doc" / "own_data.md", checkout / TRAINING)
    return checkout


def test_own_data(own_data):
    checkout = own_data
    assert (checkout / "models" / "sppe" / "mine.pth").is_file()
    assert (checkout / "train_sppe" / "exp" / "coco" / "mine_dpg" / "model_best.pkl").is_file()


@pytest.mark.parametrize("guide", ["video.md", "export.md"])
def test_guide_from_the_top_folder(own_data, guide):
    run_guide(ROOT / "doc" / guide, own_data)


def test_metrics(own_data):
    """The training of one's own data stands for both stages."""
    checkout = own_data
    source, exp = checkout / TRAINING, checkout / "train_sppe" / "exp"
    for name in ("synth106", "faces68"):
        shutil.copytree(checkout / "train_sppe" / "data" / "mine", checkout / "train_sppe" / "data" / name)
    pictures = sorted(path.name for path in (source / "images").iterdir())
    for split, names in {"train": pictures[:-4], "val": pictures[-4:-2], "test": pictures[-2:]}.items():
        (checkout / "train_sppe" / "data" / "synth106" / f"{split}.txt").write_text("\n".join(names))
    for stage in ("stg_1", "stg_2"):
        shutil.copytree(exp / "coco" / "mine", exp / "coco" / stage)
    base = ["--weights", "../../models/sppe/face106-base.pth", "--outdir", "../exp/evaluation/base"]
    command = [sys.executable, "evaluation.py", "--dataRoot", "../data/mine", *base]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    run_guide(ROOT / "doc" / "metrics.md", source)
    for name in ("ced", "ppr", "points", "curves", "heatmaps"):
        assert (source / f"{name}.png").stat().st_size > 5000
