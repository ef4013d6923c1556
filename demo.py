"""Find 106 facial landmarks on every face of a folder of pictures, or of a video.

    python3 demo.py --indir examples/imgs/ --outdir examples/outputs/ --nClasses 106 --save_img
    python3 demo.py --video clip.mp4 --outdir examples/outputs/ --save_video --smooth

sources -> decoding -> detector -> crops -> landmarks -> pose NMS -> results, each stage in its own thread.
Writes OUTDIR/alphapose-results.json, OUTDIR/manifest.json (a record of every input) and pictures to OUTDIR/vis.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from dataloader import (
    DECODE_THREADS,
    RECORD,
    Job,
    frame_jobs,
    give_boxes,
    input_jobs,
    list_jobs,
    ordered_map,
    prefetch,
    read_boxes,
    source,
)
from fn import vis_frame
from opt import IGNORED, build_parser
from pPose_nms import FORMATS, name_with, results_file, write_results
from predictor import DETECTORS, FacePredictor, find_weights
from progress import Progress, stamp
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER
from SPPE.src.utils.files import write_json, write_whole
from tracking import Tracker, follow
from video import Camera, VideoReader, VideoWriter

# What OpenCV writes; pictures in other formats get ".png" appended to their name.
WRITABLE = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

STOPPED = "stopped by the user"

# Options that shape neither what is found nor what is drawn: a run may go on (--resume) with others.
SHAPELESS = (
    *("prog", "indir", "inputlist", "inputimg", "outdir", "format", "resume", "vis", "device", "detbatch", "posebatch"),
    *("save_img", "save_video", "sp", "profile"),
)


def main(argv: list[str] | None = None, prog: str = "demo.py", **defaults) -> int:
    """The command. prog: its name in messages; defaults: of options, such as webcam="0".

    A scheduler's or a container's stop (SIGTERM) ends a run as Ctrl-C does: what was found is written.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = build_parser(prog)
    parser.set_defaults(**defaults)
    opt = parser.parse_args(argv)
    opt.prog = prog
    with contextlib.ExitStack() as open_sources:
        try:
            check(opt)
            stream = open_stream(opt)
            if stream:
                open_sources.enter_context(stream)
            jobs = sources(opt, stream)
            predictor = build_predictor(opt)
            opt.outdir.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=opt.outdir).close()  # a folder that cannot be written is told before the work
            progress = Progress(opt.outdir / RECORD, settings(opt), opt.resume)
        except (ValueError, OSError) as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 2
        with progress:
            if stream:
                return run_stream(opt, stream, jobs, predictor, progress)
            return run(opt, list(jobs), predictor, progress)


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
    given = [name for name, value in sources_of(opt).items() if value is not None]
    if len(given) > 1 and given != ["--indir", "--list"]:
        raise ValueError(f"{' and '.join(given)}: give one source")
    if opt.save_video and not is_stream(opt):
        raise ValueError("--save_video needs --video or --webcam; --save_img draws on pictures")
    if opt.detect_every < 1:
        raise ValueError(f"--detect_every {opt.detect_every} must be at least 1")
    if opt.resume and (opt.webcam is not None or "://" in str(opt.videofile)):
        raise ValueError("--resume has no meaning for a camera or an address: neither shows the same twice")
    for name in ("conf", "nms"):
        value = getattr(opt, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"--{name} {value} must be from 0 to 1")
    ignored = [f"--{name}" for name in IGNORED if getattr(opt, name) is not None]
    if ignored:
        print(f"{opt.prog}: {', '.join(ignored)}: taken for AlphaPose's sake, without effect here", file=sys.stderr)


def has_window() -> bool:
    gui = next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "")
    return "NONE" not in gui


def is_stream(opt: argparse.Namespace) -> bool:
    return opt.videofile is not None or opt.webcam is not None


def sources_of(opt: argparse.Namespace) -> dict[str, object]:
    own = {"--image": opt.inputimg, "--indir": opt.indir, "--list": opt.inputlist}
    return {**own, "--video": opt.videofile, "--webcam": opt.webcam}


def sources(opt: argparse.Namespace, stream: VideoReader | Camera | None = None) -> Iterable[Job]:
    """The stream's frames, or the pictures that the options name, with their boxes where a file gives them.

    Raises:
        ValueError, FileNotFoundError: none, or they cannot be had.
    """
    if not opt.boxes:
        return frame_jobs(stream) if stream else pictures(opt)
    boxes = read_boxes(opt.boxes)
    if stream:
        return give_boxes(frame_jobs(stream), boxes)
    jobs = pictures(opt)
    strangers = sorted(boxes.keys() - {job.name for job in jobs})
    if len(strangers) == len(boxes):
        named = f"names {strangers[0]!r}" if strangers else "names none"
        raise ValueError(f"--boxes {opt.boxes} {named}, but the pictures are called {jobs[0].name!r} and so on")
    if strangers:
        print(
            f"{opt.prog}: {opt.boxes} names {len(strangers)} pictures that are not here: {strangers[0]!r} ...",
            file=sys.stderr,
        )
    return give_boxes(jobs, boxes)


def pictures(opt: argparse.Namespace) -> list[Job]:
    if opt.inputimg:
        if not opt.inputimg.is_file():
            raise FileNotFoundError(f"--image {opt.inputimg} does not exist")
        return [Job(opt.inputimg.name, opt.inputimg)]
    if opt.inputlist:
        return list_jobs(opt.inputlist, opt.indir)
    if opt.indir:
        return input_jobs(opt.indir)
    raise ValueError("nothing to read: say --indir FOLDER, --list FILE, --image FILE, --video FILE or --webcam N")


def open_stream(opt: argparse.Namespace) -> VideoReader | Camera | None:
    """The video or camera that the options name, if any."""
    if opt.webcam is not None:
        return Camera(opt.webcam)
    return VideoReader(opt.videofile) if opt.videofile is not None else None


def settings(opt: argparse.Namespace) -> dict:
    """What shapes the results, options and files: a run with others cannot go on where one ended."""
    own = {name: value for name, value in vars(opt).items() if name not in (*SHAPELESS, *IGNORED)}
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in own.items()}
    files = {
        "sppe's stamp": find_weights(opt.sppe, WEIGHTS_FOLDER, ".pth"),
        "detector's stamp": find_weights(opt.detector, DETECTORS, ".weights"),
        "cfg's stamp": opt.cfg,
        "video's stamp": None if opt.videofile is None else Path(opt.videofile),
        # a picture's own boxes are in its line
        "boxes' stamp": opt.boxes if is_stream(opt) else None,
    }
    return plain | {name: stamp(path) for name, path in files.items()}


def output_options(opt: argparse.Namespace) -> dict:
    """What a video's run wrote: with others it is not finished."""
    return {name: getattr(opt, name) for name in ("format", "save_img", "save_video")}


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


def run(opt: argparse.Namespace, jobs: list[Job], predictor: FacePredictor, progress: Progress) -> int:
    """All stages over pictures; whatever happens, what was found so far and a record of every input are written."""
    start, done = time.perf_counter(), set()
    left = [job for job in jobs if not (has_picture(job, opt) and progress.restore(job, predictor.hollow))]
    if len(left) < len(jobs):
        print(f"{opt.prog}: {len(jobs) - len(left)} of {len(jobs)} pictures are done already", file=sys.stderr)
    found = predictor.run(left, threaded=not opt.sp, keep_images=opt.save_img or opt.vis)

    def after(job: Job) -> None:
        done.add(id(job))
        progress.add(job)

    failure = consume(finish(found, opt, predictor), opt, len(left), after)
    for job in left:
        if failure and id(job) not in done:
            job.faces = []
            job.fail("error", f"not processed, the run ended before: {failure}")
    return conclude(opt, jobs, predictor, failure, start)


def has_picture(job: Job, opt: argparse.Namespace) -> bool:
    """Whether a picture that --save_img asks for is there from an earlier run."""
    return not opt.save_img or (opt.outdir / "vis" / picture_name(job.name)).is_file()


def has_results(opt: argparse.Namespace) -> bool:
    """Whether what a video's run writes is there from an earlier one."""
    return (
        results_file(opt.outdir, opt.format).exists()
        and (not opt.save_video or (opt.outdir / video_name(opt)).is_file())
        and (not opt.save_img or any((opt.outdir / "vis").glob("*.jpg")))
    )


def run_stream(
    opt: argparse.Namespace,
    stream: VideoReader | Camera,
    frames: Iterable[Job],
    predictor: FacePredictor,
    progress: Progress,
) -> int:
    """All stages over a video's or a camera's frames, faces followed from one to the next."""
    if progress.finished == output_options(opt) and has_results(opt):
        print(f"{opt.prog}: {stream.path} is done already; results in {opt.outdir}", file=sys.stderr)
        return 0
    start, jobs = time.perf_counter(), []
    draws = opt.save_img or opt.vis or opt.save_video
    ahead = frames if opt.sp or opt.webcam is not None else prefetch(frames)  # a camera's newest frame waits for nobody
    tracker = Tracker(opt.smooth, of_faces=predictor.of_faces)
    found = follow(predictor, ahead, tracker, opt.detect_every, draws)
    writer = VideoWriter(opt.outdir / video_name(opt), stream) if opt.save_video else None

    def after(job: Job) -> None:
        jobs.append(job)
        if writer and job.image is not None:
            writer.write(job.image, job.time)

    failure = consume(finish(found, opt, predictor), opt, stream.frames, after)
    try:
        if writer:
            writer.close()
    except (OSError, av.error.FFmpegError) as error:
        failure = failure or f"{writer.path} could not be written: {error}"
    if opt.webcam is not None and failure == STOPPED:  # the way that a camera's run ends
        failure = None
    code = conclude(opt, jobs, predictor, failure, start)
    if code == 0:
        progress.finish(output_options(opt))
    return code


def video_name(opt: argparse.Namespace) -> str:
    """AlphaPose's names, for a file that keeps times and sound."""
    own = f"webcam{opt.webcam}" if opt.webcam is not None else Path(opt.videofile).stem
    return f"AlphaPose_{''.join(c if c not in '/:' else '_' for c in own)}.mp4"


def consume(results: Iterator[Job], opt: argparse.Namespace, total: int | None, after: Callable[[Job], None]) -> str:
    """Take what the stages give, one by one; returns why they ended early, or ""."""
    try:
        with source(results if opt.sp or opt.webcam is not None else prefetch(results)) as finished:
            for job in tqdm(finished, total=total, unit="img", disable=None):
                after(job)
                if show(job, opt):
                    return STOPPED
                job.image = None  # the picture is no longer needed, its faces are
    except KeyboardInterrupt:
        return STOPPED
    except Exception as error:  # of any stage: the run ends here, with its message
        return f"{type(error).__name__}: {error}"
    return ""


def conclude(
    opt: argparse.Namespace, jobs: list[Job], predictor: FacePredictor, failure: str | None, start: float
) -> int:
    """Write everything and say what became of the run; returns the exit code."""
    failure = write_all(opt, jobs) or failure
    report(opt, jobs, time.perf_counter() - start)
    if opt.profile:
        for stage, spent in predictor.seconds.items():
            print(f"  {stage:<10} {spent:7.2f} s  {1000 * spent / max(len(jobs), 1):7.1f} ms a picture")
    if failure:
        print(f"{opt.prog}: {failure}", file=sys.stderr)
    return 1 if failure else 0


def finish(jobs: Iterable[Job], opt: argparse.Namespace, predictor: FacePredictor) -> Iterator[Job]:
    """Draw and save each job's picture where it is asked for, in threads of their own."""

    def work(job: Job) -> Job:
        if job.image is None:
            return job
        with predictor.timed("drawing"):
            job.image = vis_frame(job.image, job.faces, opt.save_box, opt.vis_fast)
            try:
                if opt.save_img:
                    save_picture(job.image, opt.outdir / "vis", job.name)
            except OSError as error:  # its faces are kept, its record says what is missing
                job.fail("error", f"the picture could not be written: {error}")
        return job

    draws = opt.save_img or opt.vis or opt.save_video
    here = opt.sp or opt.webcam is not None or not draws  # a camera's picture waits for no later one
    return ordered_map(work, jobs, 0 if here else DECODE_THREADS)


def picture_name(name: str) -> str:
    return name if Path(name).suffix.lower() in WRITABLE else name_with(name, ".png")


def save_picture(image: np.ndarray, folder: Path, name: str) -> None:
    """Write an RGB picture as FOLDER/NAME; names of any script. Raises OSError where it cannot be written."""
    name = picture_name(name)
    try:
        done, data = cv2.imencode(Path(name).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise OSError(f"OpenCV cannot encode {image.shape[1]} x {image.shape[0]} pixels as {Path(name).suffix}")
    write_whole(data.tobytes(), folder / name)


def show(job: Job, opt: argparse.Namespace) -> bool:
    """With --vis, the picture in a window; whether the user pressed q or Escape there."""
    if not opt.vis or job.image is None:
        return False
    cv2.imshow("106 landmarks", cv2.cvtColor(job.image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF in (ord("q"), 27)


def write_all(opt: argparse.Namespace, jobs: list[Job]) -> str | None:
    """Write the manifest and the results; returns what went wrong, if anything."""
    try:
        write_json([job.record() for job in jobs], opt.outdir / "manifest.json")
        times = {job.name: job.time for job in jobs if job.time is not None}
        write_results({job.name: job.faces for job in jobs}, opt.outdir, opt.format, times)
    except OSError as error:
        return f"results could not be written: {error}"
    return None


def report(opt: argparse.Namespace, jobs: list[Job], seconds: float) -> None:
    counts = {status: sum(job.status == status for job in jobs) for status in ("ok", "no_face", "unreadable", "error")}
    found = sum(len(job.faces) for job in jobs)
    told = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    kind = "frames" if is_stream(opt) else "pictures"
    print(f"{len(jobs)} {kind} ({told}), {found} faces in {seconds:.1f} s; results in {opt.outdir}")


if __name__ == "__main__":
    sys.exit(main())
