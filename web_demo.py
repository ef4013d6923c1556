"""A page in the browser: drop photographs or turn on the webcam, see the 106 landmarks, take the results home.

    python3 web_demo.py                 # opens http://127.0.0.1:8106
    curl --data-binary @photo.jpg "http://127.0.0.1:8106/api/faces?name=photo.jpg"

One FacePredictor, one picture at a time in a thread of its own, so that the server answers meanwhile. Nothing that is
sent is written to disk. Only this machine is served unless --host says otherwise; doc/web.md says the rest.
"""

import argparse
import contextlib
import io
import ipaddress
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from PIL import Image, UnidentifiedImageError

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
except ImportError as error:
    raise SystemExit(f"web_demo.py: {error}; say: pip install fastapi uvicorn") from error

from dataloader import Job
from pPose_nms import result_entries
from predictor import DEFAULT_DETECTOR, DEFAULT_SPPE, FacePredictor
from SPPE.src.landmarks import COLOURS, LINES, NAMES, NUM_POINTS, PARTS
from SPPE.src.utils.eval import DECODERS
from SPPE.src.utils.imread import UnreadableImage, decode_image

PAGE = Path(__file__).resolve().parent / "web"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# What browsers show, so that the points lie on the very picture; Pillow's names. MPO: what some telephones call a JPEG.
TYPES = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "AVIF")
MAX_NAME = 255  # characters of a picture's name that are kept; it is echoed, never opened
MAX_WAITING = 16  # pictures held in memory at a time; more are asked to come again
BODY_SECONDS = 60  # in which a picture must have arrived

# The page needs nothing but its own files, the pictures it was given (blob:) and the camera.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What a picture may have at most."""

    bytes: int = 25 * 2**20
    pixels: int = 50_000_000


class Refused(Exception):
    """A request that gets no faces: HTTP status, a code that the page translates, one sentence."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def answer(self) -> JSONResponse:
        return JSONResponse({"code": self.code, "error": self.message}, self.status)


def main(argv: list[str] | None = None) -> int:
    opt = build_parser().parse_args(argv)
    try:
        limits = limits_of(opt)
        listener = listen(opt.host, opt.port)
        networks = {name: getattr(opt, name) for name in ("sppe", "detector", "device", "precision", "flip", "decode")}
        app = build_app(FacePredictor(nClasses=NUM_POINTS, **networks), limits, {opt.host, *opt.allow_host})
    except (ValueError, OSError) as error:
        print(f"web_demo.py: {error}", file=sys.stderr)
        return 2
    address = url(opt.host, listener.getsockname()[1])
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if not opt.no_browser and has_desktop():
        threading.Timer(0.5, webbrowser.open, [address]).start()  # the listener is there already: it may come early
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends in order, then passes Ctrl-C on
        server_of(app).run(sockets=[listener])
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Find 106 facial landmarks in a page of the browser.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to serve; 0.0.0.0 for every machine that reaches this one")
    add("--port", type=int, default=8106, help="0 for any free one")
    add("--allow_host", nargs="*", default=[], metavar="NAME", help="names under which other machines may ask for it")
    add("--no_browser", action="store_true", help="do not open the page")
    add("--max_mb", type=float, default=Limits.bytes / 2**20, help="largest file, in MiB")
    add("--max_megapixels", type=float, default=Limits.pixels / 1e6, help="largest picture")
    add("--sppe", default=DEFAULT_SPPE, help="landmark weights: a name in models/sppe or a file")
    add("--detector", default=DEFAULT_DETECTOR, help="detector: a name in models/yolo or a .weights file")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto, fp32, bf16, fp16")
    add("--flip", action="store_true", help="flip test: twice the time, a little more exact")
    add("--decode", help=f"heatmaps to points: {', '.join(DECODERS)}; default: what the weights say")
    return parser


def limits_of(opt: argparse.Namespace) -> Limits:
    """Raises ValueError for a limit that lets nothing through."""
    for name in ("max_mb", "max_megapixels"):
        if not getattr(opt, name) > 0:
            raise ValueError(f"--{name} {getattr(opt, name)} must be above 0")
    return Limits(int(opt.max_mb * 2**20), int(opt.max_megapixels * 1e6))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; OSError with the remedy where the port is taken or the address is not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot serve {host} port {port} ({error}); say another --port, or --port 0") from error


def url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def has_desktop() -> bool:
    """Whether a browser window can open; without one Python would start a browser of the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def server_of(app: FastAPI) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off"))


# --- the server ---------------------------------------------------------------------------------------------------


def build_app(predictor: Callable, limits: Limits | None = None, hosts: Collection[str] = ()) -> FastAPI:
    """The page, its files, and /api.

    Args:
        predictor: a FacePredictor of 106 points.
        limits: of a picture; None: the defaults.
        hosts: names, besides localhost and IP addresses, under which a browser may ask for this server.
    """
    limits = limits or Limits()
    app = FastAPI(title="106 facial landmarks", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.add_middleware(Guard, hosts=frozenset(name.lower() for name in hosts))
    one_at_a_time = anyio.Semaphore(1)  # of the networks: they use every core already
    waiting = 0

    @app.get("/api/landmarks")
    async def landmarks() -> dict:
        """The 106 points as data, and what a picture may have at most."""
        parts = {part: {"points": PARTS[part], "lines": LINES[part], "colour": COLOURS[part]} for part in PARTS}
        return {"names": NAMES, "parts": parts, "limits": {"bytes": limits.bytes, "pixels": limits.pixels}}

    @app.post("/api/faces")
    async def faces(request: Request, name: str = "picture") -> dict:
        """The faces of the picture that is the request's body; `results` are its entries of alphapose-results.json."""
        nonlocal waiting
        if waiting >= MAX_WAITING:
            raise Refused(503, "busy", f"{waiting} pictures are waiting already; try again in a moment")
        waiting += 1
        try:
            data = await read_body(request, limits.bytes)
            async with one_at_a_time:
                if await request.is_disconnected():
                    raise Refused(499, "gone", "the browser went away before its turn came")
                return await anyio.to_thread.run_sync(find_faces, predictor, data, name[:MAX_NAME], limits)
        finally:
            waiting -= 1

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return error.answer()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return Refused(error.status_code, "unknown", f"{request.method} here: {error.detail}").answer()

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return Refused(500, "failed", f"the server failed: {type(error).__name__}: {error}").answer()

    for route, data, kind in page_files():
        app.add_api_route(route, file_endpoint(data, kind), include_in_schema=False)
    return app


def page_files() -> list[tuple[str, bytes, str]]:
    """(route, bytes, media type) of the page's files, read once: no path that a client sends is ever opened."""
    files = [path for path in sorted(PAGE.iterdir()) if path.suffix in KINDS]
    return [
        ("/" if path.name == "index.html" else f"/{path.name}", path.read_bytes(), KINDS[path.suffix]) for path in files
    ]


def file_endpoint(data: bytes, kind: str) -> Callable:
    async def endpoint() -> Response:
        return Response(data, media_type=kind)

    return endpoint


async def read_body(request: Request, most: int) -> bytes:
    """The request's body.

    Raises:
        Refused: it is longer than `most`, which is told before it has come in, or comes too slowly.
    """
    too_large = Refused(413, "too_large", f"the file is larger than {most / 2**20:g} MiB; make the picture smaller")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    data = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                if len(data) + len(chunk) > most:
                    raise too_large
                data += chunk
    except TimeoutError as error:
        raise Refused(408, "too_slow", f"the file did not arrive within {BODY_SECONDS} s; try again") from error
    except ClientDisconnect as error:
        raise Refused(499, "gone", "the browser went away while the file came in") from error
    return bytes(data)


def find_faces(predictor: FacePredictor, data: bytes, name: str, limits: Limits) -> dict:
    """What /api/faces answers for the bytes of a picture file; boxes and keypoints in pixels of the upright picture.

    Raises:
        Refused: it is no picture, or none that is taken.
    """
    check_header(data, name, limits)
    start = time.perf_counter()
    try:
        image = decode_image(data, name)
    except UnreadableImage as error:
        raise Refused(422, "unreadable", str(error)) from error
    job = next(predictor.run([Job(name, image=image)], threaded=False))
    if job.status not in ("ok", "no_face"):
        raise Refused(500, "failed", job.message)
    return {
        "name": name,
        "status": job.status,
        "width": image.shape[1],
        "height": image.shape[0],
        "milliseconds": round(1000 * (time.perf_counter() - start)),
        "boxes": [[round(float(value), 2) for value in (*face.box, face.score)] for face in job.faces],
        "hollow": [int(i) for i in predictor.hollow.nonzero()[0]],
        "results": result_entries(name, job.faces),
    }


def check_header(data: bytes, name: str, limits: Limits) -> None:
    """Raise Refused where a picture's first bytes say that it is not taken; nothing is decoded for that."""
    if not data:
        raise Refused(422, "unreadable", f"{name}: the file is empty")
    told = "JPEG, PNG, WebP, GIF, BMP and AVIF are taken"
    try:
        with Image.open(io.BytesIO(data), formats=[kind for kind in TYPES if kind in registered()]) as picture:
            width, height = picture.size
    except UnidentifiedImageError as error:
        raise Refused(415, "wrong_type", f"{name}: no picture of a kind that browsers show; {told}") from error
    except Exception as error:  # hostile bytes bring out a dozen kinds of error
        raise Refused(422, "unreadable", f"{name}: cannot be read: {str(error) or type(error).__name__}") from error
    if width * height > limits.pixels:
        raise Refused(
            413,
            "too_many_pixels",
            f"{name}: {width} x {height} pixels, more than {limits.pixels / 1e6:g} million; make the picture smaller",
        )


def registered() -> Collection[str]:
    """The formats that this Pillow was built with."""
    Image.init()
    return Image.OPEN


class Guard:
    """Refuses what another site's page sends, and adds HEADERS to every answer.

    A page of any site may post to 127.0.0.1, and one whose name is pointed at 127.0.0.1 (DNS rebinding) may read the
    answer too. So the name that was asked for must be this server's, and a request that names its origin must come
    from the page of this server.
    """

    def __init__(self, app: Callable, hosts: frozenset[str]):
        self.app, self.hosts = app, hosts
        # A proxy may ask by another name or port than the page's own; this machine's other ports are other people's.
        self.named = {name for name in hosts if name != "localhost" and not is_address(name)}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        reason = self.refusal(Headers(scope=scope))
        app = Refused(403, "refused", reason).answer() if reason else self.app
        await app(scope, receive, send_with_headers)

    def refusal(self, headers: Headers) -> str:
        """Why a request with these headers is refused, "" when it is not."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = hostname(f"//{host}")
        if not (name == "localhost" or name in self.hosts or is_address(name)):
            return f"this server is not {host!r}; if it is meant to be, start it with --allow_host NAME"
        own = origin is None or urlsplit(origin).netloc.lower() == host.lower() or hostname(origin) in self.named
        if not own:
            return f"a page of {origin!r} may not use this server"
        if (
            origin is None
            and headers.get("sec-fetch-site") == "cross-site"
            and headers.get("sec-fetch-mode") != "navigate"
        ):
            return "another site's page may not use this server"
        return ""


def hostname(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is an IP address: no DNS server can point that elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
