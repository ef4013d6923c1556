"""Label the faces of unlabelled photographs with a trained network, where it agrees with itself; from train_sppe/src:

    python tools/pseudo.py --images photographs --weights ../exp/coco/stg_1/model_best.pkl --out ../data/pseudo
    python train.py --dataRoot ../data/mine ../data/pseudo --share 0.8 0.2 ...

The detector finds the faces; each is cropped several times, moved, resized, turned and mirrored, and the network's
points are brought back to the picture. Their mean is the label where they scatter less than --spread (of the face's
size); other points are not annotated, and a face with fewer than half of its points is left out (Radosavovic et al.,
"Data Distillation", CVPR 2018). `--exclude FILE` keeps pictures out (a name a line): those whose faces validate.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
sys.path.append(str(Path(__file__).resolve().parents[3]))

import numpy as np
from tqdm import tqdm

from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS
from SPPE.src.main_fast_inference import Estimator
from SPPE.src.utils.img import crop_affines, grow_boxes, warp_box
from SPPE.src.utils.imread import UnreadableImage, find_images, load_image
from utils.command import complaints
from utils.dataset.base import Annotations, Augmentation, boxes_of, compose, link_pictures, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME
from utils.lists import read_list
from yolo.detector import Detector

# Views of a face: the second half are mirror images.
VIEWS = 12
VIEW = Augmentation(scale=0.23, rotate=18.0, shift=0.06, flip=0.0)

# A detection as weak as this is rather no face.
CONF = 0.7


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, required=True, help="folder of photographs")
    add("--weights", type=Path, required=True, help="of the network that labels")
    add("--out", type=Path, required=True, help="folder to write: images/ (a link) and the .h5")
    add("--spread", type=float, default=0.015, help="largest deviation of a kept point, of the box's size")
    add("--smallest", type=float, default=48, help="smallest side of a face, pixels")
    add("--exclude", type=Path, help="list of pictures to leave out (utils/lists.py)")
    opt = parser.parse_args(argv)
    with complaints("pseudo.py"):
        run(opt)


def run(opt: argparse.Namespace) -> None:
    estimator, detector = Estimator(opt.weights, NUM_POINTS), Detector(conf=CONF)
    unwanted = {name for name, _ in read_list(opt.exclude)} if opt.exclude else set()
    names = [name for name in find_images(opt.images) if name.as_posix() not in unwanted]
    link_pictures(opt.out, opt.images)
    images, points, visible, seen = [], [], [], 0
    for name in tqdm(names, unit="picture", disable=None):
        try:
            image = load_image(opt.images / name)
        except UnreadableImage as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for box in detector([image])[0][:, :4]:
            if min(box[2:] - box[:2]) < opt.smallest:
                continue
            seen += 1
            mean, deviation = label(image, box, estimator)
            kept = (deviation < opt.spread * np.sqrt(np.prod(box[2:] - box[:2]))) & ~estimator.hollow
            if 2 * kept.sum() >= NUM_POINTS:
                images.append(opt.out / "images" / name)
                points.append(mean)
                visible.append(2 * kept)
    if not images:
        raise ValueError(f"{opt.images}: no face of {seen} was labelled; a larger --spread keeps more")
    points, visible = np.array(points, np.float32), np.array(visible, np.uint8)
    # of all that the network was taught: the scattered ones err by little
    boxes = boxes_of(points, np.broadcast_to(np.where(estimator.hollow, 0, 2).astype(np.uint8), visible.shape))
    data = Annotations(images, boxes, points * (visible > 0)[..., None], visible)
    write_h5(
        opt.out / FILE_NAME, data.check(lambda row: f"{images[row]}"), opt.out / "images", np.full(len(images), "train")
    )
    print(f"{opt.out / FILE_NAME}: {len(images)} of {seen} faces in {len(names)} pictures, "
          f"{(visible > 0).sum(1).mean():.0f} points a face")  # fmt: skip


def label(image: np.ndarray, box: np.ndarray, estimator: Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Mean (106, 2), image pixels, and root mean square deviation (106,) of the points over the views of one face."""
    height, width = image.shape[:2]
    size, rng = estimator.input_size, np.random.default_rng(0)
    grown = grow_boxes(box[None], width, height, estimator.growth)[0]
    plain = crop_affines(grown[None], *size)[0]
    mirror = np.array([[-1.0, 0, size[1] - 1], [0, 1, 0]])
    affines = [compose(VIEW.affine(rng, *size)[0], plain) for _ in range(VIEWS)]
    half = VIEWS // 2
    affines = np.stack([*affines[:half], *(compose(mirror, affine) for affine in affines[half:])])
    # around the box the picture goes on: the views show what a larger or shifted box would
    near = grow_boxes(grown[None], width, height)[0]
    crops = np.stack([warp_box(image, near, affine, *size) for affine in affines])
    points, _ = estimator(crops, affines)  # (VIEWS, 106, 2)
    points[half:] = points[half:, list(FLIP_ORDER)]
    mean = points.mean(axis=0)
    return mean, np.sqrt(((points - mean) ** 2).sum(axis=2).mean(axis=0))


if __name__ == "__main__":
    main()
