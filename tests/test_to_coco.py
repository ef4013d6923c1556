"""tools/to_coco.py: files that pycocotools loads and scores, that make_h5.py reads back, and that Datumaro imports."""

import json
import sys

import numpy as np
import pytest

import demo
from conftest import ROOT
from SPPE.src.landmarks import FLIP_ORDER, IBUG68, LINES, NAMES, NUM_POINTS
from tiny import make_tiny_dataset
from utils.dataset import build_dataset

sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
from make_h5 import main as make_h5
from to_coco import SIGMAS, WHOLEBODY_FACE, annotation, main

EXAMPLES = ROOT / "examples" / "imgs"


def run(*arguments):
    main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A data set of drawn faces, one point never annotated, and its validation part as COCO JSON."""
    folder = tmp_path_factory.mktemp("coco")
    make_tiny_dataset(folder / "data", n=12, unannotated=(7,))
    run("truth", "--dataRoot", folder / "data", "--images", folder / "data" / "images", "--out", folder / "truth.json")
    return folder


def found(truth, noise, rng):
    """What a network would have written that errs by `noise` of each face's size."""
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    entries = []
    for face in truth["annotations"]:
        triples = np.array(face["keypoints"], float).reshape(-1, 3)
        triples[:, :2] += rng.normal(0, noise * np.sqrt(face["area"]), (NUM_POINTS, 2))
        image = names[face["image_id"]]
        entries.append({"image_id": image, "category_id": 1, "keypoints": triples.ravel().tolist(), "score": 2.5})
    return entries


def scores(tiny, capsys, noise):
    truth = json.loads((tiny / "truth.json").read_text())
    (tiny / "found.json").write_text(json.dumps(found(truth, noise, np.random.default_rng(0))))
    run("results", "--results", tiny / "found.json", "--truth", tiny / "truth.json", "--out", tiny / "results.json")
    capsys.readouterr()
    run("score", "--truth", tiny / "truth.json", "--results", tiny / "results.json")
    return {line[:10].strip(): float(line[10:]) for line in capsys.readouterr().out.splitlines()[:10]}


def test_pycocotools_scores_better_points_higher(tiny, capsys):
    exact, near, far = (scores(tiny, capsys, noise) for noise in (0.0, 0.015, 0.1))
    assert exact["AP"] == exact["AR"] == 1
    assert far["AP"] < near["AP"] < 1 and near["AP50"] == 1


def test_pycocotools_similarity_is_the_papers_formula(tiny):
    """OKS of a face by hand: mean of exp(-d^2 / (2 area (2 sigma)^2)) over the annotated points."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = json.loads((tiny / "truth.json").read_text())
    (entry, *_), face = found(truth, 0.02, np.random.default_rng(1)), truth["annotations"][0]
    expected = COCO(str(tiny / "truth.json"))
    evaluation = COCOeval(expected, expected.loadRes([{**entry, "image_id": face["image_id"]}]), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
    evaluation.params.imgIds = [face["image_id"]]
    evaluation.evaluate()
    a, b = (np.array(kind["keypoints"]).reshape(-1, 3) for kind in (face, entry))
    distance = ((a[:, :2] - b[:, :2]) ** 2).sum(axis=1)
    terms = np.exp(-distance / (2 * face["area"] * (2 * np.array(SIGMAS)) ** 2))
    assert evaluation.ious[face["image_id"], 1][0, 0] == pytest.approx(terms[a[:, 2] > 0].mean())


def test_truth_is_the_data_set(tiny):
    """make_h5.py reads the file back to the same points and visibilities."""
    data, images = build_dataset("dt_fac_106_ldmks", tiny / "data", "val"), tiny / "data" / "images"
    (tiny / "splits").mkdir()
    (tiny / "splits" / "val.txt").write_text("\n".join(path.name for path in data.images))
    options = ["--format", "coco", "--images", images, "--annotations", tiny / "truth.json", "--out", tiny / "again"]
    make_h5([str(o) for o in [*options, "--val-tail", "0.999"]])
    again = build_dataset("dt_fac_106_ldmks", tiny / "again", "val")
    for path, points, visible, box in zip(again.images, again.points, again.visible, again.boxes):
        row = data.images.index(path) if path in data.images else [p.name for p in data.images].index(path.name)
        assert (visible == data.visible[row]).all() and not visible[7]
        assert points[visible > 0] == pytest.approx(data.points[row][visible > 0], abs=2e-3)
        assert box == pytest.approx(data.boxes[row], abs=2e-3)


def test_sigmas_follow_the_68_and_the_mirror():
    sigmas = np.array(SIGMAS)
    assert sigmas.shape == (NUM_POINTS,) and (sigmas == sigmas[list(FLIP_ORDER)]).all()
    assert (sigmas[list(IBUG68)] <= WHOLEBODY_FACE).all() and 0.005 < sigmas.min() <= sigmas.max() < 0.05
    assert sigmas[1] == pytest.approx((sigmas[0] + sigmas[2]) / 2, abs=1e-4)
    assert sigmas[74] < sigmas[:33].min() < sigmas[0]  # an eye is found more exactly than the cheek's edge


def test_hidden_and_missing_points():
    points, visible = np.random.default_rng(0).uniform(5, 90, (NUM_POINTS, 2)), np.full(NUM_POINTS, 2)
    points[3], visible[3], visible[4] = np.nan, 0, 1
    face = annotation(1, 1, np.where(visible[:, None] > 0, points, 0), visible, np.array([1, 2, 96, 97.5]))
    assert face["keypoints"][9:12] == [0, 0, 0] and face["keypoints"][14] == 1 and face["num_keypoints"] == 105
    assert face["bbox"] == [1, 2, 95, 95.5]
    assert face["area"] == pytest.approx(np.prod(np.nanmax(points, 0) - np.nanmin(points, 0)), abs=1e-2)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """The example photographs' faces as annotations for other tools, after the guide's two commands."""
    folder = tmp_path_factory.mktemp("labels")
    assert demo.main(["--indir", str(EXAMPLES), "--outdir", str(folder / "out")]) == 0
    file = folder / "coco" / "annotations" / "person_keypoints_default.json"
    run("labels", "--results", folder / "out" / "alphapose-results.json", "--images", EXAMPLES, "--out", file)
    return file


def test_labels_load_in_pycocotools(labels):
    from pycocotools.coco import COCO

    coco = COCO(str(labels))
    (face,) = coco.loadCats(1)
    assert face["keypoints"] == list(NAMES) and len(set(NAMES)) == NUM_POINTS
    names = {(NAMES[a - 1], NAMES[b - 1]) for a, b in face["skeleton"]}
    assert names == {(NAMES[a], NAMES[b]) for lines in LINES.values() for a, b in lines}
    found = json.loads((labels.parents[2] / "out" / "alphapose-results.json").read_text())
    assert len(coco.anns) == len(found)
    for image in coco.loadImgs(coco.getImgIds()):
        for own in coco.loadAnns(coco.getAnnIds(image["id"])):
            x, y, w, h = own["bbox"]
            assert x + w / 2 < image["width"] and y + h / 2 < image["height"] and own["area"] > 100


def test_labels_import_in_datumaro(labels):
    """Datumaro is what CVAT imports with; every point arrives under its name."""
    datumaro = pytest.importorskip("datumaro")
    (labels.parents[1] / "images").symlink_to(EXAMPLES)
    data = datumaro.Dataset.import_from(str(labels.parents[1]), "coco_person_keypoints")
    found = json.loads(labels.read_text())
    categories = data.categories()[datumaro.AnnotationType.points]
    assert next(iter(categories.items.values())).labels == list(NAMES)
    points = [a for item in data for a in item.annotations if a.type in ("points", datumaro.AnnotationType.points)]
    assert len(points) == len(found["annotations"]) and {len(p.points) for p in points} == {2 * NUM_POINTS}
    (own,) = (a for item in data if item.id == "grace_hopper" for a in item.annotations if hasattr(a, "visibility"))
    number = next(image["id"] for image in found["images"] if image["file_name"] == "grace_hopper.jpg")
    (face,) = (face for face in found["annotations"] if face["image_id"] == number)
    assert own.points == pytest.approx(np.array(face["keypoints"]).reshape(-1, 3)[:, :2].ravel(), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "--truth", "none.json", "--results", "none.json"), "none.json"),
        (("results", "--results", "TORN", "--truth", "TRUTH", "--out", "OUT"), "is no JSON"),
        (("results", "--results", "TRUTH", "--truth", "TRUTH", "--out", "OUT"), "holds a dict"),
        (("results", "--results", "EMPTY", "--truth", "TRUTH", "--out", "OUT"), "relative to the same folder"),
        (("score", "--results", "BODY", "--truth", "TRUTH"), "run `to_coco.py results` first"),
        (("labels", "--results", "BODY", "--images", "DATA", "--out", "OUT"), "entry 0"),
        (("truth", "--dataRoot", "DATA", "--images", "OUT", "--out", "OUT"), "not below"),
    ],
)
def test_bad_use_gets_one_sentence(tiny, tmp_path, capsys, arguments, message):
    (tmp_path / "torn.json").write_text("[{")
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "body.json").write_text('[{"image_id": "a.jpg", "keypoints": [1, 2, 3], "score": 1}]')
    stand_ins = {"TORN": tmp_path / "torn.json", "EMPTY": tmp_path / "empty.json", "BODY": tmp_path / "body.json"}
    stand_ins |= {"TRUTH": tiny / "truth.json", "DATA": tiny / "data", "OUT": tmp_path / "out.json"}
    with pytest.raises(SystemExit) as stop:
        run(*(stand_ins.get(a, a) for a in arguments))
    err = capsys.readouterr().err
    assert stop.value.code == 2 and message in err and err.count("\n") == 1 and not (tmp_path / "out.json").exists()
