"""Videos in and out, identities, One-Euro, and the demo's newer inputs and outputs."""

import csv
import json
import os
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import demo
from dataloader import input_jobs, read_boxes
from face import Face
from pPose_nms import FORMATS, write_results
from predictor import FacePredictor
from SPPE.src.landmarks import MEAN_FACE
from SPPE.src.utils.imread import load_image
from tracking import OneEuro, Tracker
from utils.dataset.w300 import read_pts
from video import Camera, UnreadableVideo, VideoReader, VideoWriter

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "imgs"
TIMES = (0, 40, 90, 200, 240, 300, 360, 500)  # milliseconds, of a variable frame rate


@pytest.fixture(scope="module")
def picture():
    return np.ascontiguousarray(load_image(EXAMPLES / "eileen_collins.jpg")[:300, 100:400])


def write_clip(
    path, picture, times=TIMES, sound=None, rotation=0, form=None, codec="libx264", options=None, hertz=44100
):
    """A clip of the picture moving to the right, with a tone."""
    with av.open(str(path), "w", format=form, options=options or {}) as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if codec == "libx264" else Fraction(1, 25)
        if rotation:
            stream.set_display_rotation(rotation)
        tone = out.add_stream(sound, rate=hertz, layout="mono") if sound else None
        for number, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(picture, 3 * number, 1)), format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = moment
            out.mux(stream.encode(frame))
        for number in range(20 if tone else 0):
            wave = (np.sin(np.arange(1024) * 0.05) * 8000).astype(np.int16)[None]
            samples = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            samples.rate, samples.pts = hertz, number * 1024
            out.mux(tone.encode(samples))
        out.mux(stream.encode(None))
        if tone:
            out.mux(tone.encode(None))
    return path


def frames_of(path):
    with VideoReader(path) as video:
        return list(video)


def manifest(outdir):
    return json.loads((outdir / "manifest.json").read_text())


# --- reading ------------------------------------------------------------------------------------------------------


def test_frames_have_their_own_times(tmp_path, picture):
    for name in ("a.mp4", "a.mkv"):
        frames = frames_of(write_clip(tmp_path / name, picture))
        assert [round(1000 * frame.time) for frame in frames] == list(TIMES)
        assert np.abs(frames[0].image.astype(int) - picture).mean() < 4


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_telephones_rotation_is_applied(tmp_path, picture, degrees):
    stored = np.ascontiguousarray(np.rot90(picture, -degrees // 90))  # turning it counter-clockwise makes it upright
    (frame, *_) = frames_of(write_clip(tmp_path / "r.mp4", stored, rotation=degrees))
    assert frame.image.shape == picture.shape
    assert np.abs(frame.image.astype(int) - picture).mean() < 5


def test_a_broken_end_keeps_what_came_before(tmp_path, picture):
    path = write_clip(tmp_path / "whole.mp4", picture, options={"movflags": "faststart"})
    data = path.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) - 30])
    frames = frames_of(tmp_path / "cut.mp4")
    assert len(frames) == len(TIMES) and sum(frame.image is None for frame in frames) == 1
    assert all(frame.message for frame in frames if frame.image is None)
    assert [round(1000 * frame.time) for frame in frames] == list(TIMES)


def test_a_stream_without_a_length_or_times(tmp_path, picture):
    """A bare H.264 stream through a pipe."""
    path = write_clip(tmp_path / "bare.h264", picture, form="h264")
    os.mkfifo(tmp_path / "pipe")
    feeding = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(path.read_bytes()))
    feeding.start()
    with VideoReader(tmp_path / "pipe") as video:
        assert video.frames is None
        times = [frame.time for frame in video]
    feeding.join()
    assert len(times) == len(TIMES) and (np.diff(times) > 0).all()


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "not there.mp4"):
        with pytest.raises(UnreadableVideo, match=name):
            VideoReader(tmp_path / name)
    with pytest.raises(UnreadableVideo, match="no video stream"), av.open(str(tmp_path / "s.wav"), "w") as out:
        tone = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        out.mux(tone.encode(samples))
        out.close()
        VideoReader(tmp_path / "s.wav")


# --- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sound"), [("a.mp4", "aac"), ("a.mkv", "pcm_s16le")])
def test_times_and_sound_are_kept(tmp_path, picture, name, sound):
    source = write_clip(tmp_path / name, picture, sound=sound)
    with VideoReader(source) as video, VideoWriter(tmp_path / "out.mp4", video) as writer:
        for frame in video:
            writer.write(frame.image[:-1], frame.time)  # an odd side
    assert [round(1000 * frame.time) for frame in frames_of(tmp_path / "out.mp4")] == list(TIMES)
    with av.open(str(tmp_path / "out.mp4")) as out:
        assert out.streams.audio[0].codec_context.name == "aac"
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in out.decode(audio=0)])
    assert len(heard) >= 20 * 1024 - 2048 and np.abs(heard).max() > 0.1
    assert not list(tmp_path.glob(".*"))


# --- identities and steadiness --------------------------------------------------------------------------------------


def face_at(x: float, y: float = 200, noise: float = 0) -> Face:
    points = np.array(MEAN_FACE, np.float32) / 20 + (x, y)
    points += np.random.default_rng(int(x)).normal(0, noise, points.shape).astype(np.float32) if noise else 0
    low, high = points.min(0), points.max(0)
    box = np.array([low[0], low[1] - (high - low)[1] / 3, *high], np.float32)
    return Face(box, 0.9, points, np.ones(106, np.float32), 3.1, np.zeros(106, bool))


def test_identities_stay_with_faces_that_pass_close_by():
    tracker, first = Tracker(), {}
    for step in range(30):
        left, right = face_at(100 + 5 * step), face_at(400 - 5 * step, 330)
        order = [left, right] if step % 2 else [right, left]
        named = {face.idx: face.box[1] for face in tracker.update(order, step / 25)}
        first = first or named
        assert named == pytest.approx(first)


def test_a_face_that_returns_soon_is_the_same_and_later_another():
    tracker = Tracker()
    (face,) = tracker.update([face_at(100)], 0.0)
    assert tracker.update([], 0.1) == []
    assert tracker.update([face_at(103)], 0.5)[0].idx == face.idx
    tracker.update([], 3.0)
    assert tracker.update([face_at(103)], 3.1)[0].idx != face.idx


def test_a_face_that_the_detector_misses_is_looked_for_and_then_let_go():
    tracker = Tracker()
    tracker.update([face_at(100)], 0.0)
    none = np.zeros((0, 5), np.float32)
    assert [len(tracker.boxes(none)) for _ in range(4)] == [1, 1, 0, 0]


def test_a_person_keeps_the_box_of_a_person():
    """Its landmarks make a face's box, which would neither find the person again nor show it to the network."""
    tracker, person = Tracker(of_faces=False), np.array([200, 30, 420, 640], np.float32)
    face = replace(face_at(300), box=person)
    idx = [tracker.update([face], step / 25)[0].idx for step in range(3)]
    assert idx == [1, 1, 1] and tracker.boxes()[0, :4] == pytest.approx(person)


def test_one_euro_steadies_still_points_and_follows_fast_ones():
    rng = np.random.default_rng(0)
    still, face = OneEuro(), np.array(MEAN_FACE) / 10
    out = np.stack([still(face + rng.normal(0, 0.5, face.shape), i / 30) for i in range(90)])[30:]
    assert out.std(0).mean() < 0.5 * 0.5
    fast, speed = OneEuro(), 300.0  # pixels a second, two face widths
    for i in range(60):
        last = fast(face + np.array([speed * i / 30, 0]), i / 30)
    assert (face + np.array([speed * 59 / 30, 0]) - last)[:, 0].mean() < speed / 30  # less than a frame behind
    assert np.array_equal(OneEuro()(face, 5.0), face)


# --- the command --------------------------------------------------------------------------------------------------


def test_video_to_results_and_video(tmp_path, picture):
    clip = write_clip(tmp_path / "clip.mp4", picture, sound="aac")
    arguments = [
        "--video",
        str(clip),
        "--outdir",
        str(tmp_path / "out"),
        "--save_video",
        "--smooth",
        "--detect_every",
        "3",
    ]
    assert demo.main(arguments) == 0
    records = manifest(tmp_path / "out")
    assert [record["image"] for record in records] == [f"{i}.jpg" for i in range(len(TIMES))]
    assert [round(1000 * record["time"]) for record in records] == list(TIMES)
    entries = json.loads((tmp_path / "out" / "alphapose-results.json").read_text())
    assert [entry["idx"] for entry in entries] == [1] * len(TIMES)
    moved = np.array([np.reshape(entry["keypoints"], (106, 3))[:, 0].mean() for entry in entries])
    assert np.diff(moved) == pytest.approx(np.full(len(TIMES) - 1, 3), abs=2)  # the face goes 3 px a frame
    assert len(frames_of(tmp_path / "out" / "AlphaPose_clip.mp4")) == len(TIMES)
    written = (tmp_path / "out" / "alphapose-results.json").stat().st_mtime_ns
    assert demo.main([*arguments, "--resume"]) == 0
    assert (tmp_path / "out" / "alphapose-results.json").stat().st_mtime_ns == written
    assert demo.main([*arguments, "--resume", "--format", "pts"]) == 0
    assert len(list((tmp_path / "out" / "pts").iterdir())) == len(TIMES)
    (tmp_path / "out" / "AlphaPose_clip.mp4").unlink()
    assert demo.main([*arguments, "--resume", "--format", "pts"]) == 0
    assert (tmp_path / "out" / "AlphaPose_clip.mp4").is_file()
    write_clip(clip, picture, times=TIMES[:3])
    assert demo.main([*arguments, "--resume"]) == 2  # another video of that name


def test_the_detector_is_asked_every_few_frames(tmp_path, picture, monkeypatch):
    asked, real = [], FacePredictor.detect
    monkeypatch.setattr(FacePredictor, "detect", lambda self, image: asked.append(1) or real(self, image))
    clip = write_clip(tmp_path / "clip.mp4", picture)
    assert demo.main(["--video", str(clip), "--outdir", str(tmp_path), "--detect_every", "4", "--sp"]) == 0
    assert len(asked) == 2 and all(record["faces"] == 1 for record in manifest(tmp_path))


def test_given_boxes_are_every_frames_own(tmp_path, picture):
    clip, boxes = write_clip(tmp_path / "clip.mp4", picture), [[60, 20, 200, 180], [5, 5, 60, 60]]
    (tmp_path / "boxes.json").write_text(json.dumps({f"{i}.jpg": boxes for i in range(len(TIMES))}))
    arguments = ["--video", str(clip), "--boxes", str(tmp_path / "boxes.json"), "--outdir", str(tmp_path)]
    assert demo.main([*arguments, "--format", "npz"]) == 0
    with np.load(tmp_path / "landmarks.npz") as arrays:
        for number in range(len(TIMES)):
            assert sorted(arrays["boxes"][arrays["image"] == f"{number}.jpg"].tolist()) == sorted(boxes)
    (tmp_path / "boxes.json").write_text(json.dumps({"0.jpg": boxes}))
    assert demo.main([*arguments, "--format", "npz", "--resume"]) == 2  # other boxes


def test_a_trimmed_video_is_whole(tmp_path, picture):
    """Frames that an edit list leaves out are in the file and not shown."""
    clip = write_clip(tmp_path / "clip.mp4", picture, times=range(0, 1200, 40))
    with av.open(str(clip)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                shift = round(Fraction(1, 2) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    frames = frames_of(tmp_path / "cut.mp4")
    assert 0 < len(frames) < 30 and all(frame.image is not None for frame in frames)


def test_a_video_trimmed_at_its_end_is_whole(tmp_path, picture):
    """A shorter duration in the edit list; the samples after it stay in the file and in its count."""
    data = bytearray(write_clip(tmp_path / "clip.mp4", picture, times=range(0, 1200, 40)).read_bytes())
    entry = data.index(b"elst") + 12  # after version and flags, and the number of entries
    duration = int.from_bytes(data[entry : entry + 4], "big")
    data[entry : entry + 4] = (duration // 2).to_bytes(4, "big")
    (tmp_path / "cut.mp4").write_bytes(data)
    frames = frames_of(tmp_path / "cut.mp4")
    assert 0 < len(frames) < 20 and all(frame.image is not None for frame in frames)


def test_clips_joined_end_to_end_keep_their_sound(tmp_path, picture):
    """Times start anew where the second begins: pictures and sound both go on after the first's."""
    clip = write_clip(tmp_path / "clip.ts", picture, sound="aac").read_bytes()
    (tmp_path / "twice.ts").write_bytes(clip * 2)
    with VideoReader(tmp_path / "twice.ts") as video, VideoWriter(tmp_path / "out.mp4", video) as writer:
        for frame in video:
            writer.write(frame.image, frame.time)
    assert len(frames_of(tmp_path / "out.mp4")) == 2 * len(TIMES)
    with av.open(str(tmp_path / "out.mp4")) as out:
        samples = sum(frame.samples for frame in out.decode(audio=0))
    assert samples > 1.8 * 20 * 1024


def test_sound_that_no_mp4_can_hold_is_left_out(tmp_path, picture):
    source = write_clip(tmp_path / "a.mkv", picture, sound="pcm_s16le", hertz=192_000)
    complaint = pytest.warns(UserWarning, match="without its sound: no AAC of 192000 Hz")
    with VideoReader(source) as video, VideoWriter(tmp_path / "out.mp4", video) as writer, complaint:
        for frame in video:
            writer.write(frame.image, frame.time)
    assert len(frames_of(tmp_path / "out.mp4")) == len(TIMES)


def test_a_camera(tmp_path, picture):
    """OpenCV opens a file as it does a camera; how many of its frames are taken depends on the machine."""
    clip = write_clip(tmp_path / "cam.mp4", picture)
    with Camera(str(clip)) as camera:
        frames = list(camera)
    assert 1 <= len(frames) <= len(TIMES) and frames[0].image.shape == picture.shape
    assert demo.main(["--webcam", str(clip), "--outdir", str(tmp_path / "out")]) == 0
    assert manifest(tmp_path / "out")[0]["image"] == "0.jpg"


def test_resume_leaves_out_what_is_done(tmp_path, capsys, monkeypatch):
    names = ("grace_hopper.jpg", "eileen_collins.jpg", "nikola_tesla.jpg")
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes((EXAMPLES / name).read_bytes())
    arguments = ["--indir", str(tmp_path / "in"), "--outdir", str(tmp_path / "out")]
    assert demo.main(arguments) == 0
    whole = (tmp_path / "out" / "alphapose-results.json").read_bytes()
    lines = (tmp_path / "out" / "progress.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "progress.jsonl").write_text("".join(lines[:2]) + lines[2][:50])  # killed in the second picture
    for path in ("alphapose-results.json", "manifest.json"):
        (tmp_path / "out" / path).unlink()
    seen, real = [], FacePredictor._find
    monkeypatch.setattr(
        FacePredictor, "_find", lambda self, jobs, keep: seen.extend(j.name for j in jobs) or real(self, jobs, keep)
    )
    assert demo.main([*arguments, "--resume"]) == 0
    assert len(seen) == 2 and len(manifest(tmp_path / "out")) == 3
    ours, theirs = json.loads((tmp_path / "out" / "alphapose-results.json").read_bytes()), json.loads(whole)
    assert [e["image_id"] for e in ours] == [e["image_id"] for e in theirs]
    assert demo.main([*arguments, "--resume"]) == 0 and len(seen) == 2
    assert demo.main([*arguments, "--resume", "--conf", "0.7"]) == 2
    assert "conf" in capsys.readouterr().err
    monkeypatch.setattr(demo, "stamp", lambda path: path and ["of other weights"])
    assert demo.main([*arguments, "--resume"]) == 2
    assert "stamp" in capsys.readouterr().err


def test_formats(tmp_path):
    for form in FORMATS[3:]:
        arguments = ["--image", str(EXAMPLES / "group.jpg"), "--outdir", str(tmp_path), "--format", form]
        assert demo.main(arguments) == 0
    with np.load(tmp_path / "landmarks.npz") as arrays:
        landmarks = arrays["landmarks"]
        assert landmarks.shape == (10, 106, 2) and set(arrays["image"]) == {"group.jpg"}
        assert arrays["head_pose"].shape == (10, 3) and np.isnan(arrays["time"]).all()
    with (tmp_path / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 and len(rows[0]) == 13 + 318
    assert float(rows[3]["y105"]) == pytest.approx(landmarks[3, 105, 1], abs=1e-3)
    files = {path.name for path in (tmp_path / "pts").iterdir()}
    assert files == {"group.pts", *(f"group_{i}.pts" for i in range(1, 10))}
    assert read_pts(tmp_path / "pts" / "group_3.pts", (106,)) == pytest.approx(landmarks[3], abs=2e-3)


def test_colours_and_the_shape_of_pixels_are_kept(tmp_path):
    """Large videos are taken for BT.709 and small ones for BT.601, unless they say what they are."""
    red = np.zeros((720, 1280, 3), np.uint8)
    red[..., 0] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        out.mux(stream.encode(None))
    with VideoReader(tmp_path / "a.mp4") as video, VideoWriter(tmp_path / "b.mp4", video) as writer:
        for frame in video:
            writer.write(red, frame.time)
    with av.open(str(tmp_path / "b.mp4")) as written:
        stream = written.streams.video[0]
        (luma,) = {int(frame.to_ndarray()[100, 100]) for frame in written.decode(video=0)}
        assert (stream.sample_aspect_ratio, stream.codec_context.colorspace) == (Fraction(4, 3), 1)
    assert luma == pytest.approx(63, abs=1)  # of BT.709; BT.601's red is 81


def test_boxes_of_other_pictures_are_not_taken_in_silence(tmp_path, capsys):
    arguments = ["--image", str(EXAMPLES / "eileen_collins.jpg"), "--boxes", str(tmp_path / "b.json")]
    arguments += ["--outdir", str(tmp_path / "out")]
    (tmp_path / "b.json").write_text('[{"image_id": 42, "bbox": [1, 2, 30, 40]}]')
    assert demo.main(arguments) == 2
    assert "names '42', but the pictures are called 'eileen_collins.jpg'" in capsys.readouterr().err
    (tmp_path / "b.json").write_text('{"eileen_collins.jpg": [[100, 50, 300, 300]], "else.jpg": []}')
    assert demo.main(arguments) == 0
    assert "1 pictures that are not here: 'else.jpg'" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ['{"image_id": "a"}', '{"image_id": "a", "bbox": [1, 2, 3]}', "[1, 2]"])
def test_an_entry_that_is_no_box_is_named(tmp_path, entry):
    (tmp_path / "b.json").write_text(f'[{{"image_id": "a", "bbox": ["1", "2", "3", "4"]}}, {entry}]')
    with pytest.raises(ValueError, match=r"b\.json: entry 1 is .*expected"):
        read_boxes(tmp_path / "b.json")
    (tmp_path / "b.json").write_text('[{"image_id": "a", "bbox": ["1", "2", "3", "4"]}]')
    assert read_boxes(tmp_path / "b.json")["a"].tolist() == [[1, 2, 4, 6, 1]]


def test_boxes_from_files(tmp_path):
    (tmp_path / "b.csv").write_text("image,x1,y1,x2,y2\na.jpg,1,2,30,40\na.jpg,5,6,70,80\n")
    (tmp_path / "b.json").write_text('{"a.jpg": [[1, 2, 30, 40], [5, 6, 70, 80]], "none.jpg": []}')
    (tmp_path / "c.json").write_text('[{"image_id": "a.jpg", "bbox": [1, 2, 29, 38], "score": 0.5}]')
    assert read_boxes(tmp_path / "b.csv")["a.jpg"].tolist() == [[1, 2, 30, 40, 1], [5, 6, 70, 80, 1]]
    assert read_boxes(tmp_path / "b.json")["none.jpg"].shape == (0, 5)
    assert read_boxes(tmp_path / "c.json")["a.jpg"].tolist() == [[1, 2, 30, 40, 0.5]]
    write_results({"a.jpg": [face_at(100)]}, tmp_path, "csv")
    (own,) = read_boxes(tmp_path / "landmarks.csv")["a.jpg"]
    assert own == pytest.approx([*face_at(100).box, 0.9], abs=1e-3)
    for content, message in (
        ("image,x1\na,1\n", "line 2 lacks y1"),
        ("image,x1,y1,x2,y2\na,9,1,2,3\n", "line 2: box 0"),
    ):
        (tmp_path / "bad.csv").write_text(content)
        with pytest.raises(ValueError, match=rf"bad\.csv: {message}"):
            read_boxes(tmp_path / "bad.csv")
    (face,) = FacePredictor(device="cpu")(EXAMPLES / "grace_hopper.jpg")
    (tmp_path / "own.json").write_text(json.dumps({"grace_hopper.jpg": [face.box.tolist()]}))
    arguments = ["--indir", str(EXAMPLES / "*hopper.jpg"), "--boxes", str(tmp_path / "own.json")]
    assert demo.main([*arguments, "--outdir", str(tmp_path / "out")]) == 0
    (entry,) = json.loads((tmp_path / "out" / "alphapose-results.json").read_text())
    assert np.reshape(entry["keypoints"], (106, 3))[:, :2] == pytest.approx(face.landmarks, abs=0.01)
    boxes = [face.box.tolist(), [-500, -500, -400, -400], [9000, 10, 9100, 100]]
    (tmp_path / "own.json").write_text(json.dumps({"grace_hopper.jpg": boxes}))
    assert demo.main([*arguments, "--outdir", str(tmp_path / "out")]) == 0
    (record,) = manifest(tmp_path / "out")
    assert record["faces"] == 1 and record["message"] == "2 of the 3 given boxes lie outside the picture"


def test_patterns_and_single_files(tmp_path):
    assert [job.name for job in input_jobs(EXAMPLES / "nikola*.jpg")] == ["nikola_tesla.jpg", "nikola_tesla_seated.jpg"]
    assert [job.name for job in input_jobs(EXAMPLES / "group.jpg")] == ["group.jpg"]
    assert "imgs/group.jpg" in [job.name for job in input_jobs(EXAMPLES.parent / "im*")]
    with pytest.raises(ValueError, match="matches no pictures"):
        input_jobs(EXAMPLES / "*.md")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "no.mp4"], "no.mp4: cannot be opened"),
        (["--video", "x.mp4", "--indir", "y"], "give one source"),
        (["--image", "x.jpg", "--save_video"], "--save_video needs"),
        (["--webcam", "0", "--resume"], "--resume has no meaning"),
        (["--video", "rtsp://camera/1", "--resume"], "--resume has no meaning"),
        (["--image", "x.jpg", "--conf", "55"], "--conf 55.0 must be from 0 to 1"),
        (["--video", "x.mp4", "--detect_every", "0"], "--detect_every 0"),
        (["--indir", str(EXAMPLES), "--boxes", "no.csv"], "no.csv does not exist"),
        (["--webcam", str(EXAMPLES / "group.jpg"), "--boxes", "no.csv"], "no.csv does not exist"),
    ],
)
def test_bad_use_gets_one_sentence(tmp_path, capsys, arguments, message):
    assert demo.main([*arguments, "--outdir", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
