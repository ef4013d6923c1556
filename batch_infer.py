"""demo.py for a folder that is too large for one machine: the same pipeline on a Ray cluster.

    python3 batch_infer.py --indir photos/ --outdir results/ --address auto --workers 32
    python3 batch_infer.py --indir photos/ --outdir results/ --address auto --workers 8 --worker_gpus 1

All of demo.py's options for pictures; without --address the machine that it is started on is the cluster. This project
and the pictures lie at the same paths on every machine. The results are demo.py's, byte for byte where all machines
compute alike: the pictures meet in the same batches. Every picture has a record in the manifest (N in, N out): what a
worker had when it was killed is given to another one.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

import demo
from dataloader import Job
from opt import build_parser
from predictor import DETECTORS, ROOT, find_weights
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER

NAME = "batch_infer.py"

# How often a batch is given to another worker after its own has died. A picture that kills whoever opens it (a crash in
# a decoder, more memory than there is) must not go round for ever.
RETRIES = 1

STARTING = range(0)  # the batch of a worker that is not up yet


class Worker:
    """One process of the cluster: networks loaded once, then batch after batch."""

    def __init__(self, opt: argparse.Namespace):
        self.opt, self.predictor = opt, demo.build_predictor(opt)

    def run(self, jobs: list[Job]) -> list[Job]:
        """The jobs with their faces, or with the reason why there are none."""
        try:
            found = self.predictor.run(jobs, threaded=False, keep_images=self.opt.save_img)
            for job in demo.finish(found, self.opt, self.predictor):
                job.image = None
        except Exception as error:  # of a network, say: these pictures have failed, the others go on
            for job in jobs:
                job.faces = []
                job.fail("error", f"{type(error).__name__}: {error}")
        return jobs


def main(argv: list[str] | None = None, worker: type = Worker) -> int:
    """The command. worker: what a process of the cluster does."""
    opt = cluster_parser().parse_args(argv)
    opt.prog, opt.sp = NAME, True
    try:
        check(opt)
        jobs = list(demo.sources(opt))
        absolute(opt, jobs)
        opt.outdir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=opt.outdir).close()
        ray = connect(opt)
    except (ValueError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    try:
        return run(opt, jobs, worker)
    finally:
        ray.shutdown()


def cluster_parser() -> argparse.ArgumentParser:
    parser = build_parser()
    parser.prog, parser.description = NAME, "demo.py on a Ray cluster."
    add = parser.add_argument_group("cluster").add_argument
    add("--address", help="of the Ray cluster: auto, HOST:PORT; default: this machine alone")
    add("--workers", type=int, help="processes, each with both networks; default: as many as find room")
    add("--worker_cpus", type=float, default=1, help="cores a worker")
    add("--worker_gpus", type=float, default=0, help="GPUs a worker; 0.25: four share one")
    return parser


def check(opt: argparse.Namespace) -> None:
    """As demo.check, and what a worker would stumble over: missing weights, no room.

    Raises:
        ValueError, FileNotFoundError: names the first option that makes no sense.
    """
    demo.check(opt)
    if opt.vis:
        raise ValueError("--vis: a cluster has no window; say --save_img")
    if any(getattr(opt, name, None) for name in ("videofile", "webcam", "resume", "profile")):
        raise ValueError("videos, cameras, --resume and --profile are demo.py's; here say --indir, --list or --image")
    if opt.workers is not None and opt.workers < 1:
        raise ValueError(f"--workers {opt.workers} must be at least 1")
    if opt.worker_cpus <= 0 or opt.worker_gpus < 0:
        raise ValueError(f"--worker_cpus {opt.worker_cpus} must be above 0, --worker_gpus {opt.worker_gpus} not below")
    find_weights(opt.sppe, WEIGHTS_FOLDER, ".pth")
    find_weights(opt.detector, DETECTORS, ".weights")


def absolute(opt: argparse.Namespace, jobs: list[Job]) -> None:
    """Workers have a working folder of their own: make paths absolute."""
    opt.outdir = opt.outdir.absolute()
    for name in ("sppe", "detector", "cfg"):
        value = getattr(opt, name)
        if value and Path(value).is_file():
            setattr(opt, name, Path(value).absolute())
    for job in jobs:
        job.path = job.path and job.path.absolute()


def connect(opt: argparse.Namespace):
    """Join the cluster, or start one on this machine; returns the ray module.

    Raises:
        ValueError: Ray is not installed. OSError: no cluster at --address, or one without room for a worker.
    """
    # nothing is reported to anyone
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"{NAME} needs Ray ({error}): pip install ray") from error
    # this project for the workers; their threads: one a core that they have
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(max(1, int(opt.worker_cpus)))}
    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "error",
        "include_dashboard": False if not opt.address else None,
    }
    try:
        ray.init(address=opt.address or "local", runtime_env={"env_vars": env}, **quiet)
    except Exception as error:  # Ray's own kinds, by version
        raise OSError(f"no Ray cluster at --address {opt.address}: {str(error).splitlines()[0]}") from error
    total = ray.cluster_resources()
    if total.get("CPU", 0) < opt.worker_cpus or total.get("GPU", 0) < opt.worker_gpus:
        ray.shutdown()
        raise OSError(
            f"the cluster has {total.get('CPU', 0):g} cores and {total.get('GPU', 0):g} GPUs: "
            f"no room for a worker of {opt.worker_cpus:g} and {opt.worker_gpus:g}; see --worker_cpus, --worker_gpus"
        )
    opt.workers = opt.workers or room(opt, total)
    return ray


def room(opt: argparse.Namespace, total: dict[str, float]) -> int:
    """Workers that fit the cluster."""
    fits = [total["CPU"] / opt.worker_cpus] + ([total["GPU"] / opt.worker_gpus] if opt.worker_gpus else [])
    return max(1, int(min(fits)))


def run(opt: argparse.Namespace, jobs: list[Job], worker: type) -> int:
    """Spread the batches; whatever happens, what was found and a record of every input are written."""
    start, failure, done = time.perf_counter(), None, {}
    try:
        with tqdm(total=len(jobs), unit="img", disable=None) as bar:
            for i, job in spread(opt, jobs, worker):
                done[i] = job
                bar.update()
    except KeyboardInterrupt:
        failure = "stopped by the user"
    except Exception as error:  # of the cluster itself
        failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for i, job in enumerate(jobs):
        if i in done:
            jobs[i] = done[i]
        else:
            why = f"the run ended before: {failure}" if failure else "the worker that opened it died, each time"
            job.fail("error", f"not processed, {why}")
    failure = demo.write_all(opt, jobs) or failure
    demo.report(opt, jobs, time.perf_counter() - start)
    if failure:
        print(f"{NAME}: {failure}", file=sys.stderr)
    return 1 if failure else 0


def spread(opt: argparse.Namespace, jobs: list[Job], worker: type) -> Iterator[tuple[int, Job]]:
    """(number, finished job) as they come; those whose worker died each time do not come.

    A worker has one batch at a time, so its death touches no other, and none before it is up, so that nothing waits
    for a worker that finds no room.

    Raises:
        ray.exceptions.RayError: workers do not start.
    """
    import ray
    from ray.exceptions import RayError

    hire: Any = ray.remote(num_cpus=opt.worker_cpus, num_gpus=opt.worker_gpus)(worker).remote
    waiting = deque(range(i, min(i + opt.detbatch, len(jobs))) for i in range(0, len(jobs), opt.detbatch))
    tries: Counter[range] = Counter()
    # of each call that is out: its worker and batch
    calls: dict[Any, tuple[Any, range]] = {}

    def start() -> None:
        actor = hire(opt)
        calls[actor.__ray_ready__.remote()] = actor, STARTING

    for _ in range(min(opt.workers, len(waiting))):
        start()
    while waiting or any(batch for _, batch in calls.values()):
        (call,), _ = ray.wait(list(calls))
        actor, batch = calls.pop(call)
        try:
            found = ray.get(call)
        except RayError:  # killed, out of memory, its machine is gone
            tries[batch] += 1
            if tries[STARTING] > opt.workers:
                raise
            if batch and tries[batch] <= RETRIES:
                waiting.append(batch)
            elif len(batch) > 1:  # what comes to nothing in company is tried alone
                waiting.extend(range(i, i + 1) for i in batch)
            ray.kill(actor)
            start()
            continue
        if batch:
            yield from zip(batch, found)
        else:
            tries[STARTING] = 0
        if waiting:
            batch = waiting.popleft()
            calls[actor.run.remote([jobs[i] for i in batch])] = actor, batch


if __name__ == "__main__":
    sys.exit(main())
