"""MediaPipe's face mesh of every face of a data set, as a teacher for tools/distil.py.

    python train_sppe/src/tools/mesh.py --dataRoot train_sppe/data/pseudo

Writes ROOT/mesh.npz: vertices (N, 2, 478, 2), image pixels, of every row's face and of its mirror image (brought back),
nan where the mesh sees no face in the annotated box. Like tools/complete106.py it wants an environment of its own:

    python -m venv meshenv && meshenv/bin/pip install mediapipe==0.10.14 "numpy<2" h5py
"""

import argparse
from pathlib import Path

import cv2
import h5py
import numpy as np
from complete106 import MESH_VARIANTS, MESH_VERTICES, MeshTeacher

FILE_NAME = "annot_dt_fac_106_ldmks.h5"

# The picture around a face that the mesh's own face finder wants, in sides of the box.
CONTEXT = 1.9

# A mesh whose middle lies further than this (of the box's side) from the box's is of another face.
MAX_OFFSET = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataRoot", type=Path, required=True, help=f"folder with images/ and {FILE_NAME}")
    opt = parser.parse_args()
    with h5py.File(opt.dataRoot / FILE_NAME) as file:
        names = [name.decode() for name in file["imgname"][:]]
        boxes = file["bndbox"][:].reshape(-1, 4)
    teacher, picture = MeshTeacher(), (None, None)
    vertices = np.full((len(names), 2, MESH_VERTICES, 2), np.nan, np.float32)
    for row, (name, box) in enumerate(zip(names, boxes)):
        if picture[0] != name:
            picture = name, cv2.cvtColor(cv2.imread(str(opt.dataRoot / "images" / name)), cv2.COLOR_BGR2RGB)
        vertices[row] = meshes(picture[1], box, teacher)
        if row % 100 == 99:
            print(f"{row + 1} of {len(names)}", flush=True)
    temporary = opt.dataRoot / "mesh.tmp.npz"
    np.savez(temporary, vertices=vertices)
    temporary.replace(opt.dataRoot / "mesh.npz")
    print(f"{opt.dataRoot / 'mesh.npz'}: {np.isfinite(vertices[:, :, 0, 0]).any(axis=1).sum()} of {len(names)} faces")


def meshes(image: np.ndarray, box: np.ndarray, teacher: MeshTeacher) -> np.ndarray:
    """The mesh of the face in box (4,) and that of its mirror image, brought back: (2, 478, 2) image pixels, or nan."""
    side = max(box[2:] - box[:2])
    low = np.floor(np.maximum((box[:2] + box[2:] - CONTEXT * side) / 2, 0)).astype(int)
    high = np.ceil(np.minimum((box[:2] + box[2:] + CONTEXT * side) / 2, image.shape[1::-1])).astype(int)
    crop = image[low[1] : high[1], low[0] : high[0]]
    middle, found = (box[:2] + box[2:]) / 2 - low, []
    for mirror in (False, True):
        seen = np.full((MESH_VERTICES, 2), np.nan)
        for variant in MESH_VARIANTS:
            points = teacher(crop[:, ::-1] if mirror else crop, *variant)
            if not len(points):
                continue
            if mirror:
                points = (crop.shape[1] - 1, 0) + points * (-1, 1)
            if np.linalg.norm(points.mean(axis=0) - middle) < MAX_OFFSET * side:
                seen = points + low
                break
        found.append(seen)
    return np.stack(found)


if __name__ == "__main__":
    main()
