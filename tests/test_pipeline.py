"""The pipeline's stages and the demo command, with the shipped weights on the example photographs."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import demo
from broken_inputs import make_broken_inputs
from dataloader import Job, batches, folder_jobs, list_jobs, ordered_map, prefetch, source
from opt import build_parser
from predictor import FacePredictor
from SPPE.src.utils.imread import load_image
from SPPE.src.utils.pose import mirror_points

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "imgs"

# How many faces a person counts in each example.
FACES = {"group.jpg": 10}


@pytest.fixture(scope="module")
def predictor():
    return FacePredictor(device="cpu")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The README's command."""
    outdir = tmp_path_factory.mktemp("outputs")
    code = demo.main(["--indir", str(EXAMPLES), "--outdir", str(outdir), "--nClasses", "106", "--save_img"])
    assert code == 0
    return outdir


def results(outdir):
    return json.loads((outdir / "alphapose-results.json").read_text())


def manifest(outdir):
    return {entry["image"]: entry for entry in json.loads((outdir / "manifest.json").read_text())}


# --- stages -------------------------------------------------------------------------------------------------------


def test_prefetch_keeps_order_and_ends():
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))
    assert list(prefetch(iter(()))) == []


def test_prefetch_runs_ahead_no_further_than_its_queue():
    seen = []
    stream = prefetch((seen.append(i) or i for i in range(100)), 2)
    next(stream)
    time.sleep(0.1)
    assert len(seen) <= 5  # one taken, two queued, one in hand, one being put
    stream.close()


def test_an_exception_in_a_stage_comes_out_at_the_end():
    def stage():
        yield 1
        raise RuntimeError("stage three")

    stream = prefetch(prefetch(stage()))
    assert next(stream) == 1
    with pytest.raises(RuntimeError, match="stage three"):
        next(stream)


def test_alphaposes_word_for_its_own_format():
    assert build_parser().parse_args(["--format", "coco"]).format == "alphapose"


def test_leaving_early_stops_every_thread():
    before = set(threading.enumerate())
    closed = []

    def source():
        try:
            yield from range(10_000)
        finally:
            closed.append(True)

    stream = prefetch(prefetch(ordered_map(lambda x: x, source(), 2)))
    next(stream)
    stream.close()
    assert set(threading.enumerate()) <= before
    assert closed


def test_a_failure_upstream_leaves_no_thread_behind():
    before = set(threading.enumerate())

    def stage(items):
        with source(items) as iterator:
            for item in iterator:
                if item == 5:
                    raise RuntimeError("stage two")
                yield item

    stream = prefetch(stage(prefetch(ordered_map(lambda x: x, range(10_000), 2))))
    with pytest.raises(RuntimeError, match="stage two"):
        list(stream)
    assert set(threading.enumerate()) <= before


def test_a_failing_function_keeps_what_came_before_it():
    def work(item):
        if item == 3:
            raise RuntimeError("item three")
        return item

    stream, seen = ordered_map(work, range(10), 2), []
    with pytest.raises(RuntimeError, match="item three"):
        for item in stream:
            seen.append(item)
    assert seen == [0, 1, 2]


def test_batches_and_ordered_map():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    slow_first = [0.05, 0, 0, 0.02, 0]
    assert list(ordered_map(lambda s: time.sleep(s) or s, slow_first, 3)) == slow_first


def test_what_is_done_comes_out_before_every_thread_has_work():
    asked = []

    def slowly():
        for number in range(8):
            asked.append(number)
            time.sleep(0.02)
            yield number

    with source(ordered_map(lambda number: number, slowly(), 8)) as stream:
        assert next(stream) == 0 and len(asked) < 8


# --- one picture --------------------------------------------------------------------------------------------------


def test_three_lines_of_python(predictor):
    (face,) = predictor(EXAMPLES / "eileen_collins.jpg")
    assert face.landmarks.shape == (106, 2) and face.confidence.shape == (106,)
    assert face.to_68().shape == (68, 2) and face["left_eye"].shape == (9, 2)
    with pytest.raises(KeyError, match=r"left_ear.*left_eye"):
        face["left_ear"]
    image = load_image(EXAMPLES / "eileen_collins.jpg")
    for same in (image, Image.fromarray(image)):
        assert predictor(same)[0].landmarks == pytest.approx(face.landmarks)


def test_points_follow_the_face(predictor):
    """A shifted, enlarged or mirrored picture gives points that moved with it, within 3 % of the eye distance."""
    image = load_image(EXAMPLES / "eileen_collins.jpg")
    face = predictor(image)[0].landmarks
    eyes = np.linalg.norm(face[66] - face[79])

    def off(points):
        return np.linalg.norm(points - face, axis=1).mean() / eyes

    shifted = predictor(np.pad(image, ((40, 0), (60, 0), (0, 0)), mode="edge"))[0].landmarks - (60, 40)
    larger = predictor(cv2.resize(image, None, fx=1.7, fy=1.7))[0].landmarks
    mirrored = predictor(np.ascontiguousarray(image[:, ::-1]))[0].landmarks
    assert off(shifted) < 0.03
    assert off((larger + 0.5) / 1.7 - 0.5) < 0.03
    assert off(mirror_points(mirrored, image.shape[1])) < 0.03


def test_a_picture_without_a_face_gives_nothing(predictor):
    assert predictor(np.full((300, 400, 3), 90, np.uint8)) == []
    assert predictor(np.zeros((1, 1, 3), np.uint8)) == []


def test_arrays_of_another_kind_are_refused(predictor):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8.*float64"):
        predictor(np.zeros((8, 8, 3)))


# --- the command --------------------------------------------------------------------------------------------------


def test_every_example_has_its_faces(output):
    records = manifest(output)
    assert set(records) == {path.name for path in EXAMPLES.glob("*.jpg")}
    for name, record in records.items():
        assert record["status"] == "ok", record
        assert record["faces"] == FACES.get(name, 1), record
        assert (output / "vis" / name).stat().st_size > 5000


def test_results_are_whole(output):
    entries = results(output)
    assert len(entries) == sum(record["faces"] for record in manifest(output).values())
    for entry in entries:
        assert entry["category_id"] == 1 and len(entry["keypoints"]) == 318 and entry["score"] > 0
    assert not list(output.rglob("*.tmp"))


def test_points_lie_where_a_face_has_them(output):
    """Eyes above the nose above the mouth above the chin, left of the picture left, along each face's own axes."""
    for entry in results(output):
        points = np.array(entry["keypoints"]).reshape(106, 3)[:, :2]
        across, down = points[79] - points[66], points[16] - (points[66] + points[79]) / 2
        for order, axis in (((74, 60, 87, 93, 16), down), ((66, 70, 75, 79), across), ((84, 90), across)):
            assert (np.diff(points[list(order)] @ axis) > 0).all(), (entry["image_id"], order)


def test_one_thread_gives_the_same(output, tmp_path):
    code = demo.main(["--indir", str(EXAMPLES), "--outdir", str(tmp_path), "--sp", "--detbatch", "4"])
    assert code == 0
    assert results(tmp_path) == results(output)
    assert manifest(tmp_path) == manifest(output)


def test_other_batches_give_the_same_faces(output, tmp_path):
    code = demo.main(["--indir", str(EXAMPLES), "--outdir", str(tmp_path), "--detbatch", "1", "--posebatch", "3"])
    assert code == 0
    ours, theirs = results(tmp_path), results(output)
    assert [e["image_id"] for e in ours] == [e["image_id"] for e in theirs]
    for a, b in zip(ours, theirs):
        assert np.abs(np.array(a["keypoints"]) - np.array(b["keypoints"])).max() < 2


def test_every_broken_input_has_its_record(tmp_path, capsys):
    expected = make_broken_inputs(tmp_path / "in", load_image(EXAMPLES / "eileen_collins.jpg"))
    assert len(expected) >= 60
    code = demo.main(["--indir", str(tmp_path / "in"), "--outdir", str(tmp_path / "out"), "--save_img"])
    assert code == 0
    records = manifest(tmp_path / "out")
    assert len(records) >= len(expected)
    for name, outcome in expected.items():
        status = records[name]["status"]
        assert status in ({"ok", "no_face"} if outcome == "ok_or_no_face" else {"unreadable"}), (name, records[name])
        assert outcome != "unreadable" or records[name]["message"]


def test_names_of_any_script_and_folders_with_the_same_names(tmp_path):
    picture = (EXAMPLES / "eileen_collins.jpg").read_bytes()
    names = ["照片/人脸.jpg", "a/x.jpg", "b/x.jpg", "مرحبا.JPG"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture)
    assert demo.main(["--indir", str(tmp_path / "in"), "--outdir", str(tmp_path / "out"), "--save_img"]) == 0
    assert sorted(entry["image_id"] for entry in results(tmp_path / "out")) == sorted(names)
    assert all((tmp_path / "out" / "vis" / name).is_file() for name in names)


def test_lists_and_single_pictures(tmp_path):
    (tmp_path / "list.txt").write_text("grace_hopper.jpg\nnot there.jpg\n\n")
    code = demo.main(["--indir", str(EXAMPLES), "--list", str(tmp_path / "list.txt"), "--outdir", str(tmp_path)])
    assert code == 0
    records = manifest(tmp_path)
    assert records["grace_hopper.jpg"]["faces"] == 1
    assert records["not there.jpg"]["status"] == "unreadable" and records["not there.jpg"]["message"]
    assert demo.main(["--image", str(EXAMPLES / "grace_hopper.jpg"), "--outdir", str(tmp_path / "one")]) == 0
    assert list(manifest(tmp_path / "one")) == ["grace_hopper.jpg"]


def test_a_list_never_writes_outside_the_output(tmp_path):
    """Absolute, climbing and repeated paths: each its own record and picture, the originals untouched."""
    original = tmp_path / "photos" / "me.jpg"
    original.parent.mkdir()
    original.write_bytes((EXAMPLES / "eileen_collins.jpg").read_bytes())
    before = original.read_bytes()
    listing = tmp_path / "photos" / "lists" / "list.txt"
    listing.parent.mkdir()
    listing.write_text(f"{original}\n../me.jpg\n../me.jpg\n")
    code = demo.main(["--list", str(listing), "--outdir", str(tmp_path / "out"), "--save_img", "--format", "open"])
    assert code == 0
    names = list(manifest(tmp_path / "out"))
    assert len(names) == 3 and not any(name.startswith(("/", "..")) for name in names)
    assert original.read_bytes() == before
    assert all((tmp_path / "out" / "vis" / name).is_file() for name in names)
    assert set(results(tmp_path / "out")) == set(names)


def test_results_of_a_run_are_not_the_next_runs_input(tmp_path):
    (tmp_path / "me.jpg").write_bytes((EXAMPLES / "eileen_collins.jpg").read_bytes())
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path, tmp_path / "vis" / "..", tmp_path / "link"):
        assert demo.main(["--indir", str(folder), "--outdir", str(folder), "--save_img"]) == 0
        assert list(manifest(tmp_path)) == ["me.jpg"]
    assert demo.main(["--indir", str(tmp_path), "--outdir", str(tmp_path / "second"), "--save_img"]) == 0
    assert list(manifest(tmp_path / "second")) == ["me.jpg"]
    (tmp_path / "mine" / "vis").mkdir(parents=True)  # a person's own folder of that name
    (tmp_path / "mine" / "vis" / "me.jpg").write_bytes((tmp_path / "me.jpg").read_bytes())
    assert [job.name for job in folder_jobs(tmp_path / "mine")] == ["vis/me.jpg"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_what_it_did(tmp_path, stop):
    """Ctrl-C, or a scheduler's stop: a process of its own, with more pictures than it can finish."""
    picture = (EXAMPLES / "grace_hopper.jpg").read_bytes()
    (tmp_path / "in").mkdir()
    for i in range(3000):
        (tmp_path / "in" / f"{i:04}.jpg").write_bytes(picture)
    command = [
        sys.executable,
        "demo.py",
        "--indir",
        str(tmp_path / "in"),
        "--outdir",
        str(tmp_path / "out"),
        "--save_img",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "out" / "vis").glob("*.jpg"))) < 60:  # more than the queues hold
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped by the user" in err and "Traceback" not in err
    records = manifest(tmp_path / "out")
    assert len(records) == 3000
    finished = [r for r in records.values() if r["status"] == "ok"]
    assert 0 < len(finished) < 3000
    assert len(results(tmp_path / "out")) == len(finished)


def test_a_picture_that_cannot_be_saved_keeps_its_faces(tmp_path):
    (tmp_path / "vis").write_text("a file where a folder should be")
    picture = str(EXAMPLES / "grace_hopper.jpg")
    assert demo.main(["--image", picture, "--outdir", str(tmp_path), "--save_img"]) == 0
    record = manifest(tmp_path)["grace_hopper.jpg"]
    assert record["status"] == "error" and "could not be written" in record["message"] and record["faces"] == 1
    assert len(results(tmp_path)) == 1
    with pytest.raises(OSError, match=r"70000 x 1 pixels as \.jpg"):
        demo.save_picture(np.zeros((1, 70_000, 3), np.uint8), tmp_path, "panorama.jpg")


def test_alphaposes_published_options_are_taken(tmp_path, capsys):
    options = ["--mode", "fast", "--matching", "--fast_inference", "False", "--nThreads", "30"]
    picture = str(EXAMPLES / "grace_hopper.jpg")
    assert demo.main(["--image", picture, "--outdir", str(tmp_path), *options]) == 0
    assert "--mode, --matching, --nThreads: taken for AlphaPose's sake" in capsys.readouterr().err


def test_a_failing_stage_ends_the_run_and_keeps_what_was_found(tmp_path, monkeypatch, capsys):
    good = FacePredictor._find

    def fails_later(self, jobs, keep_images):
        if jobs[0].name == sorted(path.name for path in EXAMPLES.glob("*.jpg"))[2]:
            raise RuntimeError("the network is on fire")
        return good(self, jobs, keep_images)

    monkeypatch.setattr(FacePredictor, "_find", fails_later)
    code = demo.main(["--indir", str(EXAMPLES), "--outdir", str(tmp_path), "--detbatch", "2"])
    assert code == 1
    assert "the network is on fire" in capsys.readouterr().err
    records = manifest(tmp_path)
    assert len(records) == len(list(EXAMPLES.glob("*.jpg")))
    assert sum(r["status"] == "ok" for r in records.values()) == 2
    assert sum("on fire" in r.get("message", "") for r in records.values()) == len(records) - 2
    assert results(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--indir", "no/such/folder"], "no/such/folder does not exist"),
        (["--indir", "EMPTY"], "holds no pictures"),
        ([], "--indir"),
        (["--list", "no.txt"], "no.txt does not exist"),
        (["--indir", "EXAMPLES", "--format", "xml"], "'xml'"),
        (["--indir", "EXAMPLES", "--nClasses", "68"], "68"),
        (["--indir", "EXAMPLES", "--sppe", "nothing"], "face106-lite"),
        (["--indir", "EXAMPLES", "--sppe", "PICTURE"], "cannot be read as a weights file"),
        (["--indir", "EXAMPLES", "--detector", "nothing"], "face106-det"),
        (["--indir", "EXAMPLES", "--detector", "TRUNCATED"], "expected"),
        (["--indir", "EXAMPLES", "--decode", "best"], "'best'"),
        (["--indir", "EXAMPLES", "--device", "abacus"], "'abacus'"),
        (["--indir", "EXAMPLES", "--precision", "fp7"], "'fp7'"),
        (["--indir", "EXAMPLES", "--inp_dim", "417"], "417"),
        (["--indir", "EXAMPLES", "--inputResH", "100", "--inputResW", "100"], "100"),
        (["--indir", "EXAMPLES", "--detbatch", "0"], "--detbatch 0"),
        (["--indir", "EXAMPLES", "--vis"], "--vis needs"),
        (["--list", "PICTURE"], "not UTF-8"),
    ],
)
def test_bad_use_gets_one_sentence(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    truncated = tmp_path / "face106-det.weights"
    truncated.write_bytes((ROOT / "models" / "yolo" / "face106-det.weights").read_bytes()[:100_000])
    stand_ins = {
        "EMPTY": tmp_path / "empty",
        "EXAMPLES": EXAMPLES,
        "PICTURE": EXAMPLES / "grace_hopper.jpg",
        "TRUNCATED": truncated,
    }
    code = demo.main([str(stand_ins.get(a, a)) for a in arguments] + ["--outdir", str(tmp_path / "out")])
    err = capsys.readouterr().err.strip()
    assert code == 2
    assert message in err and "\n" not in err and err.startswith("demo.py: ")
    assert not (tmp_path / "out").exists()


def test_jobs_of_folders_and_lists(tmp_path):
    with pytest.raises(ValueError, match="holds no pictures"):
        folder_jobs(tmp_path)
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no picture"):
        list_jobs(tmp_path / "list.txt")
    assert Job("x").record() == {"image": "x", "status": "ok", "faces": 0}
