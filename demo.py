"""Find 106 facial landmarks on every face of a folder of pictures.

    python3 demo.py --indir examples/imgs/ --outdir examples/outputs/ --nClasses 106 --save_img

sources -> decoding -> detector -> crops -> landmarks -> pose NMS -> results, each stage in its own thread.
Writes OUTDIR/alphapose-results.json, OUTDIR/manifest.json (a record of every input) and pictures to OUTDIR/vis.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataloader import DECODE_THREADS, Job, folder_jobs, list_jobs, ordered_map, prefetch, source
from fn import vis_frame, vis_frame_fast
from opt import IGNORED, build_parser
from pPose_nms import FORMATS, name_with, write_json, write_results, write_whole
from predictor import FacePredictor

# What OpenCV writes; pictures in other formats get ".png" appended to their name.
WRITABLE = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def main(argv: list[str] | None = None) -> int:
    opt = build_parser().parse_args(argv)
    try:
        check(opt)
        jobs = sources(opt)
        predictor = build_predictor(opt)
        opt.outdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=opt.outdir).close()  # a folder that cannot be written is told before the work
    except (ValueError, OSError) as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 2
    return run(opt, jobs, predictor)


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError for the first option that makes no sense; print which are taken for AlphaPose's sake only."""
    if opt.format not in FORMATS:
        raise ValueError(f"unknown --format {opt.format!r}; choose one of {', '.join(FORMATS)}")
    for name in ("detbatch", "posebatch"):
        if getattr(opt, name) < 1:
            raise ValueError(f"--{name} {getattr(opt, name)} must be at least 1")
    if (opt.inputResH is None) != (opt.inputResW is None):
        raise ValueError("--inputResH and --inputResW belong together: give both or neither")
    if opt.vis and not has_window():
        raise ValueError("--vis needs an OpenCV with windows: pip install opencv-python; or say --save_img")
    ignored = [f"--{name}" for name in IGNORED if getattr(opt, name) is not None]
    if ignored:
        print(f"demo.py: {', '.join(ignored)}: taken for AlphaPose's sake, without effect here", file=sys.stderr)


def has_window() -> bool:
    gui = next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "")
    return "NONE" not in gui


def sources(opt: argparse.Namespace) -> list[Job]:
    """The inputs that the options name.

    Raises:
        ValueError, FileNotFoundError: none, or they cannot be had.
    """
    if opt.inputimg:
        if not opt.inputimg.is_file():
            raise FileNotFoundError(f"--image {opt.inputimg} does not exist")
        return [Job(opt.inputimg.name, opt.inputimg)]
    if opt.inputlist:
        return list_jobs(opt.inputlist, opt.indir)
    if opt.indir:
        return folder_jobs(opt.indir, leave_out=opt.outdir / "vis")
    raise ValueError("nothing to read: say --indir FOLDER, --list FILE or --image FILE")


def build_predictor(opt: argparse.Namespace) -> FacePredictor:
    return FacePredictor(
        sppe=opt.sppe,
        detector=opt.detector,
        cfg=opt.cfg,
        nClasses=opt.nClasses,
        input_size=(opt.inputResH, opt.inputResW) if opt.inputResH else None,
        flip=opt.flip or not opt.fast_inference,
        **{name: getattr(opt, name) for name in ("inp_dim", "conf", "nms", "device", "precision", "decode", "runtime")},
        **{name: getattr(opt, name) for name in ("detbatch", "posebatch")},
    )


def run(opt: argparse.Namespace, jobs: list[Job], predictor: FacePredictor) -> int:
    """All stages; whatever happens, what was found so far and a record of every input are written."""
    start, done, failure = time.perf_counter(), set(), None
    found = predictor.run(jobs, threaded=not opt.sp, keep_images=opt.save_img or opt.vis)
    results = finish(found, opt, predictor)
    try:
        with source(results if opt.sp else prefetch(results)) as finished:
            for job in tqdm(finished, total=len(jobs), unit="img", disable=None):
                done.add(id(job))
                show(job, opt)
                job.image = None  # the picture is no longer needed, its faces are
    except KeyboardInterrupt:
        failure = "stopped by the user"
    except Exception as error:  # of any stage: the run ends here, with its message
        failure = f"{type(error).__name__}: {error}"
    for job in jobs:
        if failure and id(job) not in done:
            job.faces = []
            job.fail("error", f"not processed, the run ended before: {failure}")
    failure = write_all(opt, jobs) or failure
    report(opt, jobs, predictor, time.perf_counter() - start)
    if failure:
        print(f"demo.py: {failure}", file=sys.stderr)
    return 1 if failure else 0


def finish(jobs: Iterable[Job], opt: argparse.Namespace, predictor: FacePredictor) -> Iterator[Job]:
    """Draw and save each job's picture where it is asked for, in threads of their own."""

    def work(job: Job) -> Job:
        if job.image is None:
            return job
        with predictor.timed("drawing"):
            fast = opt.vis_fast
            job.image = vis_frame_fast(job.image, job.faces) if fast else vis_frame(job.image, job.faces, opt.save_box)
            try:
                if opt.save_img:
                    save_picture(job.image, opt.outdir / "vis", job.name)
            except (OSError, cv2.error) as error:  # its faces are kept, its record says what is missing
                job.fail("error", f"the picture could not be written: {error}")
        return job

    draws = opt.save_img or opt.vis
    return ordered_map(work, jobs, 0 if opt.sp or not draws else DECODE_THREADS)


def save_picture(image: np.ndarray, folder: Path, name: str) -> None:
    """Write an RGB picture as FOLDER/NAME; names of any script."""
    if Path(name).suffix.lower() not in WRITABLE:
        name = name_with(name, ".png")
    _, data = cv2.imencode(Path(name).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_whole(data.tobytes(), folder / name)


def show(job: Job, opt: argparse.Namespace) -> None:
    if opt.vis and job.image is not None:
        cv2.imshow("106 landmarks", cv2.cvtColor(job.image, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)


def write_all(opt: argparse.Namespace, jobs: list[Job]) -> str | None:
    """Write the manifest and the results; returns what went wrong, if anything."""
    try:
        write_json([job.record() for job in jobs], opt.outdir / "manifest.json")
        write_results({job.name: job.faces for job in jobs}, opt.outdir, opt.format)
    except OSError as error:
        return f"results could not be written: {error}"
    return None


def report(opt: argparse.Namespace, jobs: list[Job], predictor: FacePredictor, seconds: float) -> None:
    counts = {status: sum(job.status == status for job in jobs) for status in ("ok", "no_face", "unreadable", "error")}
    found = sum(len(job.faces) for job in jobs)
    told = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    print(f"{len(jobs)} pictures ({told}), {found} faces in {seconds:.1f} s; results in {opt.outdir}")
    if opt.profile:
        for stage, spent in predictor.seconds.items():
            print(f"  {stage:<10} {spent:7.2f} s  {1000 * spent / len(jobs):7.1f} ms a picture")


if __name__ == "__main__":
    sys.exit(main())
