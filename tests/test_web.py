"""The page in the browser: its server over real HTTP, and the page itself in headless Chromium where there is one."""

import csv
import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install fastapi uvicorn")

import demo
import web_demo
from predictor import FacePredictor
from SPPE.src.landmarks import COLOURS, LINES, NAMES, PARTS
from SPPE.src.utils.imread import load_image
from test_pipeline import EXAMPLES, ROOT, results
from web_demo import Guard, Limits, build_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
PICTURES = ("eileen_collins.jpg", "grace_hopper.jpg", "nikola_tesla.jpg")


@pytest.fixture(scope="module")
def predictor():
    return FacePredictor(device="cpu")


@contextmanager
def serving(predictor, **options):
    """A running server; gives its port."""
    listener = web_demo.listen("127.0.0.1", 0)
    server = web_demo.server_of(build_app(predictor, **options))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def port(predictor):
    with serving(predictor, limits=Limits(bytes=2**20, pixels=2_000_000)) as port:
        yield port


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """What demo.py writes for PICTURES, one picture at a time: image_id -> entries."""
    outdir = tmp_path_factory.mktemp("commanded")
    (outdir / "list.txt").write_text("\n".join(PICTURES))
    options = ["--indir", str(EXAMPLES), "--list", str(outdir / "list.txt"), "--detbatch", "1", "--sp"]
    assert demo.main([*options, "--outdir", str(outdir)]) == 0
    entries = results(outdir)
    return {name: [entry for entry in entries if entry["image_id"] == name] for name in PICTURES}


def ask(port, method, path, body=None, headers=None):
    """(status, headers, body) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def post(port, data, name="photo.jpg", headers=None):
    status, _, body = ask(port, "POST", f"/api/faces?name={quote(name)}", data, headers)
    return status, json.loads(body)


def picture_bytes(kind, size=(64, 48), **options):
    file = io.BytesIO()
    Image.new("RGB", size, (90, 120, 150)).save(file, kind, **options)
    return file.getvalue()


# --- the server ---------------------------------------------------------------------------------------------------


def test_the_answer_is_what_the_command_writes(port, commanded):
    for name, entries in commanded.items():
        status, answer = post(port, (EXAMPLES / name).read_bytes(), name)
        assert status == 200 and answer["status"] == "ok"
        assert answer["results"] == entries
        height, width = load_image(EXAMPLES / name).shape[:2]
        assert (answer["width"], answer["height"]) == (width, height)
        assert len(answer["boxes"]) == len(entries) and len(answer["boxes"][0]) == 5


def test_names_are_echoed_and_never_opened(port):
    data = (EXAMPLES / "eileen_collins.jpg").read_bytes()
    for name in ("照片 二.jpg", "../../etc/passwd", "/etc/passwd", "<b>.jpg"):
        status, answer = post(port, data, name)
        assert status == 200 and answer["name"] == name
        assert {entry["image_id"] for entry in answer["results"]} == {name}
    for path in ("/../web_demo.py", "/%2e%2e/web_demo.py", "/web_demo.py", "/etc/passwd", "//etc/passwd"):
        status, _, body = ask(port, "GET", path)
        assert status == 404 and b"import" not in body and b"root:" not in body


def test_the_points_are_served_as_the_schema_has_them(port):
    schema = json.loads(ask(port, "GET", "/api/landmarks")[2])
    assert tuple(schema["names"]) == NAMES and list(schema["parts"]) == list(PARTS)
    for part, own in schema["parts"].items():
        assert own["points"] == list(PARTS[part]) and tuple(own["colour"]) == COLOURS[part]
        assert own["lines"] == [list(line) for line in LINES[part]]
    assert schema["limits"] == {"bytes": 2**20, "pixels": 2_000_000}


def test_what_is_no_picture_gets_one_sentence(port):
    photo = (EXAMPLES / "eileen_collins.jpg").read_bytes()
    bomb = picture_bytes("PNG", (2000, 1500))
    cases = {
        "half.jpg": (photo[: len(photo) // 2], 422, "unreadable"),
        "empty.jpg": (b"", 422, "unreadable"),
        "text.jpg": (b"no picture", 415, "wrong_type"),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "wrong_type"),
        "scan.tif": (picture_bytes("TIFF"), 415, "wrong_type"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", 415, "wrong_type"),
        "wide.png": (bomb, 413, "too_many_pixels"),
        "long.jpg": (photo + bytes(2**20), 413, "too_large"),
    }
    for name, (data, status, code) in cases.items():
        got, answer = post(port, data, name)
        assert (got, answer["code"]) == (status, code), (name, answer)
        assert code == "too_large" or name in answer["error"]
        assert "\n" not in answer["error"] and "Traceback" not in answer["error"]
    assert post(port, photo)[0] == 200  # and it still serves


def test_a_body_without_a_length_is_counted(port):
    def chunks():
        for _ in range(40):
            yield bytes(2**16)

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/api/faces", chunks(), encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused while it was still being sent
    finally:
        connection.close()
    assert ask(port, "GET", "/")[0] == 200


def test_a_picture_without_a_face_is_no_error(port):
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP"):
        status, answer = post(port, picture_bytes(kind))
        assert (status, answer["status"], answer["results"]) == (200, "no_face", []), kind


def test_a_turned_photograph_is_measured_upright(port):
    upright = Image.open(EXAMPLES / "eileen_collins.jpg")
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it upright
    upright.rotate(90, expand=True).save(file, "JPEG", exif=exif, quality=95)
    _, turned = post(port, file.getvalue())
    _, plain = post(port, (EXAMPLES / "eileen_collins.jpg").read_bytes())
    assert (turned["width"], turned["height"]) == upright.size
    off = np.subtract(turned["results"][0]["keypoints"], plain["results"][0]["keypoints"]).reshape(106, 3)[:, :2]
    assert np.abs(off).mean() < 2


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"Host": "localhost:9"}, 200),
        ({"Host": "[::1]:9"}, 200),
        ({"Host": "192.168.0.7"}, 200),  # an address cannot be rebound
        ({"Host": "faces.lan:9"}, 200),  # as --allow_host says
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Host": "127.0.0.1:9", "Origin": "https://faces.lan"}, 200),  # through a proxy that asks by address
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "127.0.0.1:9", "Origin": "http://127.0.0.1:8"}, 403),
        ({"Host": "127.0.0.1:9", "Origin": "http://127.0.0.1:9"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ],
)
def test_other_sites_are_refused(predictor, headers, status):
    with serving(predictor, hosts={"faces.lan"}) as own:
        got, answer = post(own, picture_bytes("PNG"), headers=headers)
    assert got == status and (status == 200 or answer["code"] == "refused")


def test_every_answer_has_the_headers(port):
    for method, path in (("GET", "/"), ("GET", "/app.js"), ("GET", "/nothing"), ("POST", "/api/faces")):
        _, headers, _ = ask(port, method, path)
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["Access-Control-Allow-Origin"] is None


class Held:
    """A predictor that waits to be let go, and tells whether two threads were ever in it."""

    hollow = np.zeros(106, bool)

    def __init__(self):
        self.go, self.inside, self.most = threading.Event(), 0, 0

    def run(self, jobs, threaded):
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.go.wait(30)
        self.inside -= 1
        yield from jobs


def test_the_server_answers_while_the_networks_work(monkeypatch):
    monkeypatch.setattr(web_demo, "MAX_WAITING", 3)
    held, data, answers = Held(), picture_bytes("PNG"), []
    with serving(held) as own:
        senders = [threading.Thread(target=lambda: answers.append(post(own, data))) for _ in range(4)]
        for sender in senders:
            sender.start()
        until(lambda: answers)
        assert [(status, answer["code"]) for status, answer in answers] == [(503, "busy")]  # one more than fits
        assert ask(own, "GET", "/")[0] == 200
        held.go.set()
        for sender in senders:
            sender.join()
        assert [status for status, _ in answers] == [503, 200, 200, 200] and held.most == 1
        assert post(own, data)[0] == 200  # the places are free again


def test_a_failure_inside_is_told_in_one_sentence():
    class Broken(Held):
        def run(self, jobs, threaded):
            raise RuntimeError("out of memory")

    with serving(Broken()) as own:
        status, answer = post(own, picture_bytes("PNG"))
    assert status == 500 and answer["code"] == "failed" and "out of memory" in answer["error"]


def until(condition, seconds=90):
    """The first true value of `condition`, asked again and again; fails after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_guard_leaves_other_protocols_alone():
    import anyio

    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    anyio.run(Guard(app, frozenset()), {"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_serves_and_ends_on_ctrl_c():
    command = [sys.executable, "web_demo.py", "--port", "0", "--no_browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read()
        status, _, body = ask(int(line.split()[0].rsplit(":", 1)[1]), "GET", "/")
        assert status == 200 and b"<!DOCTYPE html>" in body
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        assert "Traceback" not in process.stderr.read()


def test_wrong_options_are_told_in_one_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, told in (
            (["--port", port], rf"port {port} .*--port 0"),
            (["--max_mb", "0"], r"--max_mb 0.0"),
            (["--port", "0", "--sppe", "nothing"], r"nothing.*face106-lite"),
        ):
            assert web_demo.main([*options, "--no_browser"]) == 2
            captured = capsys.readouterr().err
            assert captured.count("\n") == 1
            assert re.search(told, captured), captured


def test_both_languages_have_every_sentence():
    """The same keys, and every key that the page asks for."""
    texts = (ROOT / "web" / "texts.js").read_text(encoding="utf-8")
    english, chinese = (set(re.findall(r"^ {4}(\w+):", half, re.M)) for half in texts.split("  zh: {")[:2])
    assert english == chinese and len(english) > 40
    page = (ROOT / "web" / "index.html").read_text(encoding="utf-8")
    app = (ROOT / "web" / "app.js").read_text(encoding="utf-8")
    asked = set(re.findall(r'data-(?:text|label)="(\w+)"', page)) | set(re.findall(r'\btext\(\s*"(\w+)"', app))
    assert asked and asked <= english
    assert all(f"{part}:" in texts for part in PARTS)
    assert not re.search(r"https?://(?!www\.w3\.org)", page + app + texts)  # nothing comes from elsewhere


# --- the page, in a real browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera_file(tmp_path_factory):
    """A film of one photograph for Chromium's pretended camera (YUV4MPEG2)."""
    photo = cv2.resize(load_image(EXAMPLES / "eileen_collins.jpg"), (480, 480))
    scene = cv2.copyMakeBorder(photo, 0, 0, 80, 80, cv2.BORDER_CONSTANT, value=(90, 90, 90))  # 640 x 480
    frame = b"FRAME\n" + cv2.cvtColor(scene, cv2.COLOR_RGB2YUV_I420).tobytes()
    path = tmp_path_factory.mktemp("camera") / "face.y4m"
    path.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + 5 * frame)
    return path, scene


@pytest.fixture(scope="module")
def browser(camera_file, tmp_path_factory):
    """A Chromium with a pretended camera; `.downloads` is where it saves."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium and chromedriver on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
        "--lang=en",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera_file[0]}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.downloads = tmp_path_factory.mktemp("downloads")
    behaviour = {"behavior": "allow", "downloadPath": str(driver.downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, port):
    """The page, freshly opened, in English."""
    browser.get_log("browser")
    browser.get(f"http://127.0.0.1:{port}/")
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    if browser.execute_script("return document.documentElement.lang") != "en":
        find(browser, "#language").click()
    return browser


def find(page, selector):
    return page.find_element("css selector", selector)


def count(page, selector):
    """How many elements are there and shown."""
    script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    return page.execute_script(script, selector)


def text_of(page, selector):
    return find(page, selector).text


def upload(page, *paths):
    find(page, "#files").send_keys("\n".join(str(path) for path in paths))


def drop(page, *paths):
    """Files dropped on the middle of the window, as a person's hand does."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 400, "data": data})


def downloaded(page, selector, name):
    """The bytes of the file that a click saves."""
    path = page.downloads / name
    path.unlink(missing_ok=True)
    find(page, selector).click()
    until(path.is_file)
    return path.read_bytes()


def drawn_points(page):
    """(106, 2) x y in the picture's pixels of the one face on the page."""
    script = """
        const points = [...document.querySelectorAll(".point")].sort((a, b) => a.dataset.index - b.dataset.index)
        return points.map((e) => [+e.getAttribute("cx"), +e.getAttribute("cy")])
    """
    return np.array(page.execute_script(script))


def complaints(page):
    """What the browser's console holds against the page itself (blocked sources, exceptions)."""
    return [entry["message"] for entry in page.get_log("browser") if "the server responded" not in entry["message"]]


def test_upload_see_hover_toggle_download(page, commanded):
    from selenium.webdriver import ActionChains

    name = "eileen_collins.jpg"
    upload(page, EXAMPLES / name)
    until(lambda: count(page, ".point") == 106)
    assert f"{name}: 1 face" in text_of(page, "#status")

    # hover: the very point that is under the pointer, with the command's confidence
    (entry,) = commanded[name]
    for index in (16, 66, 93):
        point = find(page, f'.point[data-index="{index}"]')
        ActionChains(page).move_to_element(point).perform()
        reading = until(lambda: text_of(page, "#tip"))
        assert f"{index} · {NAMES[index]}" in reading and f"{entry['keypoints'][3 * index + 2]:.2f}" in reading
        assert NAMES[index] in text_of(page, "#reading")

    # the points lie on the picture where the JSON says
    script = """
        const box = (e) => ["left", "top", "width", "height"].map((side) => e.getBoundingClientRect()[side])
        const image = document.getElementById("picture"), points = [...document.querySelectorAll(".point")]
        return [box(image), image.naturalWidth, points.map((e) => [+e.dataset.index, ...box(e)])]
    """
    (left, top, width, _), natural, points = page.execute_script(script)
    scale = width / natural
    for index, *(x, y, w, h) in points:
        expected = np.multiply(entry["keypoints"][3 * index : 3 * index + 2], scale) + 0.5 * scale + (left, top)
        assert (x + w / 2, y + h / 2) == pytest.approx(tuple(expected), abs=0.6), index

    # toggles: a part goes, its points cannot be read any more; all and none
    find(page, '#parts input[name="left_eye"]').click()
    assert count(page, ".point") == 106 - len(PARTS["left_eye"])
    find(page, "#none").click()
    assert count(page, ".point") == 0 and count(page, ".lines") == 0
    find(page, "#all").click()
    assert count(page, ".point") == 106
    find(page, '#shown input[name="numbers"]').click()
    assert count(page, "#overlay text") == 106

    # taking home
    stem = Path(name).stem
    assert json.loads(downloaded(page, '[data-kind="json"]', f"{stem}.json")) == commanded[name]
    rows = list(csv.DictReader(io.StringIO(downloaded(page, '[data-kind="csv"]', f"{stem}.csv").decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == list(NAMES) and {row["image"] for row in rows} == {name}
    triples = [float(row[key]) for row in rows for key in ("x", "y", "confidence")]
    assert triples == pytest.approx(entry["keypoints"])
    assert complaints(page) == []


def test_a_camera_that_nobody_waits_for_any_more_is_let_go(page):
    """The camera's permission comes after a second click: its light must not stay on."""
    page.execute_script("""
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            window.streams = [...(window.streams ?? []), await real(wanted)]
            await new Promise((done) => (window.allow = done))
            return window.streams.at(-1)
        }
    """)
    state = "return [window.allow !== undefined, ...window.streams?.at(-1).getTracks().map((t) => t.readyState) ?? []]"
    find(page, "#camera").click()
    until(lambda: page.execute_script(state) == [True, "live"])
    find(page, "#camera").click()
    page.execute_script("window.allow()")
    until(lambda: page.execute_script(state) == [True, "ended"])
    assert page.execute_script("return window.streams.length") == 1 and complaints(page) == []


def test_the_picture_that_is_saved_has_the_parts_that_are_shown(page, tmp_path):
    plain = load_image(EXAMPLES / "grace_hopper.jpg")
    Image.fromarray(plain).save(tmp_path / "grace.png")  # saved as PNG again, and so to the pixel
    upload(page, tmp_path / "grace.png")
    until(lambda: count(page, ".point") == 106)
    find(page, "#none").click()
    find(page, '#parts input[name="contour"]').click()
    saved = io.BytesIO(downloaded(page, '[data-kind="picture"]', "grace-landmarks.png"))
    drawn = np.asarray(Image.open(saved).convert("RGB")).astype(int)
    points = np.rint(drawn_points(page)).astype(int)
    for x, y in points[list(PARTS["contour"])]:
        assert np.abs(drawn[y, x] - COLOURS["contour"]).max() < 60  # a dot's middle, blended at its edge
    left, top = points[list(PARTS["outer_lip"])].min(axis=0)
    right, bottom = points[list(PARTS["outer_lip"])].max(axis=0)
    assert (drawn[top:bottom, left:right] == plain[top:bottom, left:right]).all()  # the mouth is switched off


def test_several_files_dropped_at_once_and_a_broken_one_among_them(page, tmp_path, commanded):
    broken = tmp_path / "half a photograph.jpg"
    broken.write_bytes((EXAMPLES / "group.jpg").read_bytes()[:60_000])
    text_file = tmp_path / "notes.txt"
    text_file.write_text("no picture")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(2**20 + 1))
    drop(page, *(EXAMPLES / name for name in PICTURES), broken, text_file, large)
    counts = "return [...document.querySelectorAll('#strip .count')].map((e) => e.textContent)"
    until(lambda: page.execute_script(counts) == ["1", "1", "1", "!", "!", "!"])
    for position, told in ((4, "broken or not whole"), (5, "not a picture of a known kind"), (6, "larger than 1 MB")):
        find(page, f"#strip li:nth-child({position}) button").click()
        assert told in text_of(page, "#message") and count(page, ".point") == 0
        page.execute_script("dispatchEvent(new Event('resize'))")  # a window may change its size whatever it shows
    find(page, "#language").click()
    assert "超过 1 MB" in text_of(page, "#message") and find(page, "html").get_attribute("lang") == "zh-CN"
    find(page, "#language").click()
    everything = json.loads(downloaded(page, '[data-kind="all-json"]', "alphapose-results.json"))
    assert everything == [entry for name in PICTURES for entry in commanded[name]]
    find(page, "#clear").click()
    assert count(page, "#strip li") == 0 and count(page, "#empty") == 1
    assert complaints(page) == []


def test_a_picture_that_did_not_arrive_is_sent_again(page):
    """By itself where the server was busy, by its thumbnail where the server was not there."""
    page.execute_script("""
        const real = window.fetch
        const answers = [() => Promise.reject(new TypeError("no server")),
                         () => Promise.resolve(Response.json({ code: "busy" }, { status: 503 }))]
        window.fetch = (...request) => (answers.shift() ?? (() => real(...request)))()
    """)
    upload(page, EXAMPLES / "grace_hopper.jpg")
    until(lambda: "could not be sent" in text_of(page, "#message"))
    find(page, "#strip button").click()
    until(lambda: count(page, ".point") == 106)
    assert "1 face in" in find(page, "#strip button").get_attribute("aria-label") and complaints(page) == []


def test_the_keyboard_is_enough(page):
    from selenium.webdriver import Keys

    upload(page, EXAMPLES / "group.jpg")
    until(lambda: count(page, "#faces button") == 11)
    body = page.switch_to.active_element
    for _ in range(20):  # Tab gets there
        body.send_keys(Keys.TAB)
        body = page.switch_to.active_element
        if body.get_attribute("id") == "overlay":
            break
    assert body.get_attribute("id") == "overlay"
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "1 · contour_1" in text_of(page, "#reading")
    body.send_keys(Keys.PAGE_DOWN, Keys.PAGE_DOWN)
    assert find(page, "#faces [aria-pressed=true]").text == "Face 2"
    time.sleep(0.3)  # the enlargement's transition
    sides = "return ['left', 'top', 'right', 'bottom'].map((s) => arguments[0].getBoundingClientRect()[s])"
    face = page.execute_script(sides, find(page, '[data-face="1"] [data-part=contour]'))
    stage = page.execute_script(sides, find(page, "#stage"))
    assert all(np.less_equal(stage[:2], face[:2])) and all(np.less_equal(face[2:], stage[2:]))
    assert face[3] - face[1] > 0.25 * (stage[3] - stage[1])
    body.send_keys(Keys.ARROW_LEFT)
    assert "105 · right_pupil" in text_of(page, "#reading") and "Face 2" in text_of(page, "#reading")
    body.send_keys(Keys.ESCAPE)
    assert find(page, "#faces [aria-pressed=true]").text == "Whole picture"


def test_the_webcam_shows_points_over_the_live_picture(page, predictor, camera_file):
    find(page, "#camera").click()
    until(lambda: count(page, ".point") == 106)
    until(lambda: "pictures a second" in text_of(page, "#status"))
    assert count(page, "#video") == 1 and count(page, "#picture") == 0
    (face,) = predictor(camera_file[1])
    size = np.ptp(face.landmarks, axis=0).max()
    assert np.linalg.norm(drawn_points(page) - face.landmarks, axis=1).mean() < 0.03 * size
    find(page, '#shown input[name="mirror"]').click()
    assert count(page, "#view.mirrored") == 1
    find(page, "#keep").click()
    find(page, "#camera").click()
    assert page.execute_script("return document.getElementById('video').srcObject") is None
    until(lambda: count(page, ".point") == 106 and count(page, "#picture") == 1)  # the frame that was kept
    (entry,) = json.loads(downloaded(page, '[data-kind="json"]', find(page, "#strip .name").text[:-4] + ".json"))
    assert entry["image_id"].startswith("webcam-") and len(entry["keypoints"]) == 318
    assert complaints(page) == []


def test_an_enlarged_face_of_the_camera_stays_the_same_person(page):
    """Faces come in another order in every second frame."""
    page.execute_script("""
        let turn = 0
        window.fetch = async () => {
            const lefts = turn++ % 2 ? [100, 400] : [400, 100]
            const point = (left, i) => [left + 8 * (i % 10), 100 + 0.8 * i, 0.9]
            const keypoints = (left) => Array.from({ length: 106 }, (_, i) => point(left, i)).flat()
            const results = lefts.map((left) => ({ image_id: "webcam.jpg", keypoints: keypoints(left) }))
            const boxes = lefts.map((left) => [left, 100, left + 80, 190])
            const frame = { name: "webcam.jpg", width: 640, height: 480, status: "ok", milliseconds: 1, hollow: [] }
            return new Response(JSON.stringify({ ...frame, results, boxes }))
        }
    """)
    find(page, "#camera").click()
    until(lambda: count(page, ".point") == 212)
    page.execute_script("document.querySelector('#faces [data-face=\"0\"]').click()")
    enlarged = """
        const number = document.querySelector("#faces [aria-pressed=true]").dataset.face
        return [number, document.querySelector(`#overlay [data-face="${number}"] .point`).getAttribute("cx")]
    """
    seen = set()
    until(lambda: seen.add(tuple(page.execute_script(enlarged))) or len({number for number, _ in seen}) == 2)
    assert len({place for _, place in seen}) == 1 and complaints(page) == []
    find(page, "#camera").click()


def test_pictures_of_one_name_are_told_apart(page, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / folder / "image.png")
    upload(page, tmp_path / "a" / "image.png", tmp_path / "b" / "image.png")
    names = "return [...document.querySelectorAll('#strip .name')].map((e) => e.textContent)"
    until(lambda: page.execute_script(names) == ["image.png", "image~2.png"])


def test_light_and_dark_and_what_was_chosen_is_kept(page):
    def background():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = background()
    find(page, "#theme").click()
    dark = background()
    assert light != dark
    find(page, "#language").click()
    page.refresh()
    until(lambda: page.execute_script("return document.documentElement.dataset.ready"))
    assert background() == dark and text_of(page, "h1") == "106 点人脸关键点"
    find(page, "#theme").click()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_cut_off_at_the_side(page, width):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        upload(page, *(EXAMPLES / name for name in PICTURES))
        until(lambda: count(page, ".point") == 106)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
