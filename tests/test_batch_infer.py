"""batch_infer.py on a Ray cluster of two nodes on this machine: demo.py's results, and N in, N out when workers die."""

import json
import os
import signal
import sys

import pytest

import demo
from conftest import ROOT

ray = pytest.importorskip("ray")
import batch_infer

EXAMPLES = ROOT / "examples" / "imgs"
STORE = 100_000_000  # bytes of object store a node
COMPANY, ALWAYS, ONCE = "eileen_collins.jpg", "grace_hopper.jpg", "nikola_tesla.jpg"


class Mortal(batch_infer.Worker):
    """A worker that is killed (SIGKILL) at its first sight of one picture, and at every sight of another."""

    def run(self, jobs):
        names = {job.name for job in jobs}
        log = self.opt.outdir / "killed.txt"
        for name in names & {ONCE, ALWAYS}:
            if name == ALWAYS or not (log.exists() and ONCE in log.read_text()):
                with log.open("a") as file:
                    file.write(f"{os.getpid()} {name}\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(jobs)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def address():
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def manifest(outdir):
    return json.loads((outdir / "manifest.json").read_text())


def test_two_nodes_write_what_demo_writes(address, tmp_path):
    """With a picture that cannot be read and one without a face among them, and drawn pictures."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for path in EXAMPLES.glob("*.jpg"):
        (photos / path.name).symlink_to(path)
    (photos / "broken.jpg").write_bytes((EXAMPLES / ALWAYS).read_bytes()[:3000])
    demo.save_picture(demo.np.full((200, 300, 3), 90, "uint8"), photos / "more", "grey.png")
    options = ["--indir", str(photos), "--save_img", "--detbatch", "2", "--device", "cpu"]
    assert demo.main([*options, "--outdir", str(tmp_path / "one")]) == 0
    assert batch_infer.main([*options, "--outdir", str(tmp_path / "many"), "--address", address]) == 0
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {"unreadable", "no_face", "ok"} == {record["status"] for record in manifest(tmp_path / "many")}
    for file in files - {demo.Path("progress.jsonl")}:
        assert (tmp_path / "many" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file


def test_killed_workers_lose_nothing(address, tmp_path):
    """Three pictures in two batches: one kills its worker once, one each time, one is in its company."""
    (tmp_path / "photos").mkdir()
    for name in (COMPANY, ALWAYS, ONCE):
        (tmp_path / "photos" / name).symlink_to(EXAMPLES / name)
    options = ["--indir", str(tmp_path / "photos"), "--outdir", str(tmp_path), "--detbatch", "2", "--address", address]
    assert batch_infer.main(options, worker=Mortal) == 0
    company, always, once = manifest(tmp_path)
    assert company == {"image": COMPANY, "status": "ok", "faces": 1}
    assert once == {"image": ONCE, "status": "ok", "faces": 1}
    assert always["image"] == ALWAYS and always["status"] == "error" and "died" in always["message"]
    deaths = [line.split() for line in (tmp_path / "killed.txt").read_text().splitlines()]
    assert [name for _, name in deaths].count(ONCE) == 1
    assert len({process for process, _ in deaths}) == len(deaths) > batch_infer.RETRIES + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "--workers 0"),
        (["--worker_cpus", "0"], "--worker_cpus 0"),
        (["--sppe", "nothing"], "face106-lite"),
        (["--vis"], "--vis"),
        (["--indir", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_use_gets_one_sentence(tmp_path, capsys, arguments, message):
    code = batch_infer.main(["--indir", str(EXAMPLES), "--outdir", str(tmp_path / "out"), *arguments])
    err = capsys.readouterr().err.strip()
    assert code == 2 and message in err and "\n" not in err and not (tmp_path / "out").exists()
