"""What the main job needs and a fresh machine does not have: Python packages, an S3 server, the binaries."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
VENV = TARGET / "main_job" / "venv"
TOOLS = TARGET / "tools"

# Versions are pinned: a server that changes its mind over night is not a failure of Curvine.
PACKAGES = ["moto[server]==5.2.5", "boto3==1.44.8"]
S3S = "0.14.1"


def say(text):
    print(f"-- {text}", flush=True)


def enter_venv(script, venv=VENV, packages=PACKAGES):
    """Goes on in the virtual environment, which is made if it is missing."""
    python = venv / "bin" / "python"
    stamp = venv / "packages"
    if not stamp.exists() or stamp.read_text().split("\n") != packages:
        say(f"installing {' '.join(packages)} into {venv}")
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + packages, check=True)
        stamp.write_text("\n".join(packages))
    if Path(sys.prefix).resolve() != venv.resolve():
        os.execv(python, [str(python), "-B", script, *sys.argv[1:]])


def s3s_fs():
    """The server that checks signatures; built if it is missing."""
    server = TOOLS / "bin" / "s3s-fs"
    if not server.exists():
        say(f"building s3s-fs {S3S}")
        install = ["cargo", "install", "--quiet", "--locked", "s3s-fs", "--version", S3S, "--features", "binary"]
        subprocess.run([*install, "--root", TOOLS, "--target-dir", TOOLS / "build"], check=True)
        shutil.rmtree(TOOLS / "build", ignore_errors=True)
    return server


def binaries(release):
    """The directory that holds curvine-node and cv, built as they are in the tree."""
    build = ["cargo", "build", "--quiet", "-p", "curvine-node", "-p", "curvine-cli"]
    subprocess.run(build + (["--release"] if release else []), cwd=ROOT, check=True)
    return TARGET / ("release" if release else "debug")


def with_crash_points(place):
    """The same, built so that they die where they are told to; below a directory of their own."""
    features = ["--features", "curvine-actors/planted-bugs"]
    subprocess.run(["cargo", "build", "--quiet", "-p", "curvine-node", "-p", "curvine-cli", *features], cwd=ROOT, check=True)
    place.mkdir()
    for program in ("curvine-node", "cv"):
        shutil.copy2(TARGET / "debug" / program, place)
    return place


def pyspark_jars(scratch):
    """The jars of pyspark: a few hundred files that people really load."""
    wheelhouse = TARGET / "main_job" / "pyspark"
    if not any(wheelhouse.glob("pyspark-*")):
        say("downloading pyspark")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--no-binary", ":all:", "pyspark==3.5.3", "-d", wheelhouse], check=True)
    archive = next(wheelhouse.glob("pyspark-*.tar.gz"))
    subprocess.run(["tar", "-xzf", archive, "-C", scratch, "--strip-components=2", "--wildcards", "*/deps/jars"], check=True)
    return scratch / "jars"
