"""Real files of every size, and the comparison of two trees."""

import concurrent.futures
import os
import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

import setup

MIB = 1 << 20


def real_files(directory, count):
    """About as many files of an installed Python and its packages, and the largest ones: whole directories, evenly from
    all of them."""
    roots = [Path(sysconfig.get_paths()["stdlib"]), Path(sysconfig.get_paths()["purelib"])]
    directories, largest = [], []
    for root in roots:
        for place, below, names in os.walk(root):
            below[:] = sorted(set(below) - {"__pycache__", "site-packages"})
            found = [Path(place) / name for name in sorted(names)]
            found = [path for path in found if path.is_file() and not path.is_symlink()]
            if found:
                directories.append([(path, Path(root.name) / path.relative_to(root)) for path in found])
                largest += directories[-1]
    directories.sort(key=len, reverse=True)
    total = sum(map(len, directories))
    # The large directories have most of the files: a few of them, and a few of each other size.
    step = max(1, total // count)
    chosen = [pair for found in directories[::step] for pair in found]
    largest.sort(key=lambda pair: -pair[0].stat().st_size)
    for source, relative in {*chosen, *largest[:12]}:
        target = directory / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (directory / "empty").touch()


def big_file(path, size):
    """Bytes that no range can be taken for another of."""
    stream = random.Random(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        for _ in range(size // MIB):
            out.write(stream.randbytes(MIB))


def make(directory, full):
    real_files(directory / "python", 6000 if full else 700)
    if full:
        shutil.move(setup.pyspark_jars(directory), directory / "jars")


def files(directory):
    """Every file below, relative, with its size."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = Path(place) / name
            found[str(path.relative_to(directory))] = path.stat().st_size
    return found


def upload(s3, bucket, directory, prefix=""):
    def one(relative):
        s3.client.upload_file(str(directory / relative), bucket, prefix + relative)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(one, files(directory)))


def same_trees(found, expected):
    """Byte for byte, in the words of diff."""
    result = subprocess.run(["diff", "-r", found, expected], capture_output=True, text=True)
    lines = (result.stdout + result.stderr).splitlines()
    assert result.returncode == 0, f"{len(lines)} differences: " + "\n".join(lines[:10])
