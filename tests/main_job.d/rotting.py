"""Five workers that die and rot, two replicas of each block, and a program that verifies every byte."""

import random
import subprocess
import threading
import time

from cv import Cv
from machines import Node
from report import equal, holds, until

WORKERS = 5
FILE_MIB, FILES = 32, 2
SMALL_BYTES = 16 << 10


def fio(place, *more):
    """Begins fio over the files; its words come at the end."""
    command = [
        "fio", "--name=job", "--verify_state_save=0", f"--directory={place}", f"--numjobs={FILES}", f"--size={FILE_MIB}M", "--bs=64k",
        "--ioengine=psync", "--verify=crc32c", "--verify_fatal=1", "--verify_dump=0", "--group_reporting", "--invalidate=1", *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(running):
    """It has found every byte right."""
    out, _ = running.communicate(timeout=300)
    equal(running.returncode, 0, f"fio's exit code; it says: {out.decode(errors='replace')[-1500:]}")


def flip(worker, spared, chance):
    """Changes a bit of one block file of a worker, of a block of which no other replica was changed; of which."""
    files = [path for path in (worker.data_dir / "worker" / "blocks").rglob("*") if path.is_file()]
    files = [path for path in files if path.stat().st_size > SMALL_BYTES and path.name not in spared]
    if not files:
        return None
    path = chance.choice(sorted(files))
    with open(path, "r+b") as block:
        at = chance.randrange(path.stat().st_size)
        block.seek(at)
        byte = block.read(1)
        block.seek(at)
        block.write(bytes([byte[0] ^ 1]))
    spared.add(path.name)
    return path.name


def five_workers(job):
    """kill -9 of workers and flipped bits under fio, which verifies: no error for it, and all replicas are back in the end"""
    if not job.shape or job.shape[0] < 3:
        return
    chance = random.Random(14)
    environment = {"CURVINE_MASTER_REPLICAS": "2", "CURVINE_MASTER_BLOCK_SIZE": "4MiB"}
    node = Node(job.scratch, job.programs, (1, WORKERS, 1), "node-five", environment, mounted=True)
    cv = Cv(job.programs, node)
    whole = lambda: cv.json("fsck", "/")[-1]["faults"] == 0  # noqa: E731
    try:
        node.start()
        place, workers = node.mount_point, node.of("worker")
        with job.check("fio writes and verifies while one worker after the other is killed and comes back"):
            writing = fio(place, "--rw=write", "--rate=2m", "--fsync=32")
            killed = 0
            while writing.poll() is None and killed < WORKERS:
                worker = workers[killed]
                time.sleep(2)
                worker.kill()
                time.sleep(chance.uniform(0.5, 4))
                worker.start()
                killed += 1
                # The next one may have the only other replica.
                until(lambda: writing.poll() is not None or whole(), "all replicas are there", 60)
            ended(writing)
            holds(killed >= 2, f"only {killed} were killed meanwhile")
        until(whole, "all replicas are there", 60)
        with job.check("fio reads and verifies while blocks rot, each in one of its two replicas"):
            reading = fio(place, "--rw=randread", "--verify_only=1", "--rate=3m")
            spared, flipped = set(), threading.Event()

            def rot():
                while not flipped.wait(0.4):
                    flip(chance.choice(workers), spared, chance)

            rotting = threading.Thread(target=rot)
            rotting.start()
            try:
                ended(reading)
            finally:
                flipped.set()
                rotting.join()
            holds(len(spared) >= 5, f"only {len(spared)} blocks rotted")
        with job.check("the scrubbers find the rest, and everything has two right replicas again"):
            # It ends with 1 if it found some.
            holds(cv.run("scrub", "--now", "--wait")[0] in (0, 1), "they come to an end")
            until(whole, "all replicas are there", 120)
            ended(fio(place, "--rw=read", "--verify_only=1"))
    finally:
        node.stop()
