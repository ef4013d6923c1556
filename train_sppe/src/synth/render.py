"""Draws a posed head: one shadow pass from the key light, one picture pass, offscreen, with OpenGL over EGL.

The picture pass draws SUPER times larger and shrinks: on a CPU that costs half of what multisampling does. The alpha of
hair decides at random, sample by sample, so that nothing has to be sorted.
"""

from dataclasses import dataclass

import cv2
import moderngl
import numpy as np

from .shaders import DEPTH_FRAGMENT, FRAGMENT, VERTEX

SHADOW_SIZE = 256
SUPER = 1.25
NEAR_PLANE, FAR_PLANE = 1.0, 60.0  # dm from the camera

# Materials of the fragment shader.
SKIN, EYE, HAIR, PLAIN, GLASS, TEETH = range(6)

MISSING_EGL = (
    "no OpenGL over EGL here ({}); on Debian and Ubuntu: apt-get install libegl1 libgl1-mesa-dri (Mesa's CPU driver; "
    "a GPU's own driver brings its EGL along)"
)


class NoEGL(RuntimeError):
    """EGL or a driver for it is missing; the message says what to install."""


@dataclass
class Mesh:
    """What is drawn in one call.

    vertices: (n, 3) dm; normals: (n, 3); uv: (n, 2); bend: (n,) 1 where it follows the head, 0 the chest; light: (n,)
    ambient light that arrives, 0 to 1; triangles: (m, 3); texture: (h, w, 4) uint8 RGBA, top row first, and a key to
    cache it by; tint: factor of the texture's colour; two_sided: drawn from behind too; alpha: of clear glass.
    """

    material: int
    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    bend: np.ndarray
    light: np.ndarray
    triangles: np.ndarray
    texture: np.ndarray
    texture_key: str | None = None
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.3
    two_sided: bool = False
    alpha: float = 1.0


@dataclass
class View:
    """How a head is looked at and lit; colours are linear RGB, directions unit vectors in camera axes.

    head, chest: (3, 3) rotations about the pivot (3,); camera: (4, 4) camera axes -> clip; place: (3,) where the pivot
    is, in camera axes; lights: three of (direction, colour), the first casts the shadow.
    """

    head: np.ndarray
    chest: np.ndarray
    pivot: np.ndarray
    place: np.ndarray
    camera: np.ndarray
    lights: list[tuple[np.ndarray, np.ndarray]]
    sky: np.ndarray
    ground: np.ndarray
    background: np.ndarray
    exposure: float = 1.0


class Renderer:
    """Draws size x size pictures; owns an OpenGL context, so make it in the process that uses it."""

    def __init__(self, size: int):
        try:
            self.gl = moderngl.create_context(standalone=True, backend="egl")
        except Exception as error:  # the loader raises whatever the platform gives
            raise NoEGL(MISSING_EGL.format(" ".join(str(error).split()))) from error
        gl, self.size = self.gl, size
        self.program = gl.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        self.shadow_program = gl.program(vertex_shader=VERTEX, fragment_shader=DEPTH_FRAGMENT)
        self.side = round(SUPER * size)
        self.depth = gl.depth_texture((self.side, self.side))
        self.drawn = gl.framebuffer(gl.renderbuffer((self.side, self.side), 4), self.depth)
        self.shadow_map = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self.shadow_map.compare_func = "<="
        self.shadow = gl.framebuffer(depth_attachment=self.shadow_map)
        self.cache: dict[str, moderngl.Texture] = {}
        self.loaded: list = []

    def load(self, meshes: list[Mesh]) -> None:
        """Bring meshes to the driver; in the order given they are drawn."""
        for _, vao, other, buffers, texture in self.loaded:
            for item in (vao, other, *buffers):
                item.release()
            if texture is not None:
                texture.release()
        self.loaded = []
        for mesh in meshes:
            table = np.column_stack([mesh.vertices, mesh.normals, mesh.uv, mesh.bend, mesh.light]).astype("f4")
            buffer = self.gl.buffer(table.tobytes())
            index = self.gl.buffer(mesh.triangles.astype("i4").tobytes())
            layout = [(buffer, "3f 3f 2f 1f 1f", "position", "normal", "uv", "bend", "light")]
            vao = self.gl.vertex_array(self.program, layout, index)
            content = [(buffer, "3f 12x 2f 1f 4x", "position", "uv", "bend")]
            shadow = self.gl.vertex_array(self.shadow_program, content, index)
            own = None if mesh.texture_key else self._texture(mesh.texture)
            self.loaded.append((mesh, vao, shadow, (buffer, index), own))
            if mesh.texture_key and mesh.texture_key not in self.cache:
                self.cache[mesh.texture_key] = self._texture(mesh.texture)

    def _texture(self, picture: np.ndarray) -> moderngl.Texture:
        height, width = picture.shape[:2]
        texture = self.gl.texture((width, height), picture.shape[2], np.ascontiguousarray(picture[::-1]).tobytes())
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
        return texture

    def draw(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """-> the picture (size, size, 3) uint8 RGB, and the depth (size, size) float32, dm from the camera.

        The depth is that of the centre of each pixel, of what hides the rest: clear glass does not.
        """
        light_matrix = self._draw_shadow(view)
        program = self.program
        _set(program, "to_clip", view.camera)
        self._place(program, view)
        _set(program, "to_light", light_matrix)
        program["light_direction"].write(np.array([d for d, _ in view.lights], "f4").tobytes())
        program["light_colour"].write(np.array([c for _, c in view.lights], "f4").tobytes())
        program["sky"].value, program["ground"].value = tuple(view.sky), tuple(view.ground)
        program["exposure"].value = view.exposure
        self.shadow_map.use(1)
        program["image"].value, program["shadow_map"].value = 0, 1
        self.drawn.use()
        self.gl.disable(moderngl.BLEND)
        self.gl.enable(moderngl.DEPTH_TEST)
        self.gl.clear(0, 0, 0, 0, depth=1.0)
        clear_glass = [item for item in self.loaded if item[0].material == GLASS]
        for item in self.loaded:
            if item[0].material != GLASS:
                self._draw_mesh(item)
        depth = np.frombuffer(self.depth.read(), "f4").reshape(self.side, self.side)[::-1]
        if clear_glass:  # blended over the rest
            self.gl.enable(moderngl.BLEND)
            self.gl.blend_func = (
                moderngl.SRC_ALPHA,
                moderngl.ONE_MINUS_SRC_ALPHA,
                moderngl.ONE,
                moderngl.ONE_MINUS_SRC_ALPHA,
            )
            self.drawn.depth_mask = False
            for item in clear_glass:
                self._draw_mesh(item)
            self.drawn.depth_mask = True
        pixels = np.frombuffer(self.drawn.read(components=4), np.uint8).reshape(self.side, self.side, 4)[::-1]
        pixels = cv2.resize(pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        depth = cv2.resize(depth, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        return _over(pixels, view.background), _decimetres(depth)

    def _draw_mesh(self, item: tuple) -> None:
        mesh, vao, _, _, own = item
        program = self.program
        (own or self.cache[mesh.texture_key]).use(0)
        program["material"].value = mesh.material
        program["tint"].value = mesh.tint
        program["gloss"].value = mesh.gloss
        program["two_sided"].value = mesh.two_sided
        program["opacity"].value = mesh.alpha
        if mesh.two_sided:
            self.gl.disable(moderngl.CULL_FACE)
        else:
            self.gl.enable(moderngl.CULL_FACE)
        vao.render()

    def _draw_shadow(self, view: View) -> np.ndarray:
        """Fill the shadow map; -> (4, 4) camera axes -> the light's clip space, which holds the head."""
        direction = view.lights[0][0]
        side = np.cross(direction, (0.0, 1.0, 0.0))
        side = side / max(np.linalg.norm(side), 1e-6)
        axes = np.stack([side, np.cross(direction, side), direction])
        matrix = np.eye(4)
        radius = 2.6  # dm: the head with its hair
        matrix[:3, :3] = axes / radius * np.array([[1], [1], [-0.5]])
        matrix[:3, 3] = -matrix[:3, :3] @ (view.place + view.head @ np.array([0.0, 1.0, 0.3]))
        _set(self.shadow_program, "to_clip", matrix)
        self._place(self.shadow_program, view)
        self.shadow.use()
        self.gl.enable(moderngl.DEPTH_TEST)
        self.gl.disable(moderngl.CULL_FACE)
        self.gl.clear(depth=1.0)
        for mesh, _, vao, _, own in self.loaded:
            if mesh.material not in (GLASS, EYE, TEETH):  # they lie inside, or let light through
                (own or self.cache[mesh.texture_key]).use(0)
                vao.render()
        return matrix

    def _place(self, program: moderngl.Program, view: View) -> None:
        program["head"].write(np.ascontiguousarray(view.head.T, "f4").tobytes())
        program["chest"].write(np.ascontiguousarray(view.chest.T, "f4").tobytes())
        program["pivot"].value, program["place"].value = tuple(view.pivot), tuple(view.place)


def _decimetres(depth: np.ndarray) -> np.ndarray:
    """Depth buffer 0 .. 1 -> distance along the camera's axis."""
    near, far = NEAR_PLANE, FAR_PLANE
    return 2 * near * far / (far + near - (2 * depth - 1) * (far - near))


def _set(program: moderngl.Program, name: str, matrix: np.ndarray) -> None:
    program[name].write(np.ascontiguousarray(matrix.T, "f4").tobytes())


def _over(pixels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """RGBA with premultiplied coverage over an RGB background, both uint8."""
    behind = cv2.multiply(background, cv2.merge([255 - pixels[..., 3]] * 3), scale=1 / 255)
    return cv2.add(pixels[..., :3], behind)


def camera_matrix(focal: float, centre: np.ndarray, half: float) -> np.ndarray:
    """Perspective (4, 4), camera axes (looking along -z) -> clip space.

    A point is at focal * (x, y) / -z of an image plane; the square of half-side `half` about `centre` (2,) of that
    plane fills the picture.
    """
    near, far = NEAR_PLANE, FAR_PLANE
    matrix = np.zeros((4, 4))
    matrix[0, 0] = matrix[1, 1] = focal / half
    matrix[0, 2], matrix[1, 2] = centre / half
    matrix[2, 2], matrix[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
    matrix[3, 2] = -1
    return matrix
