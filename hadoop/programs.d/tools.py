"""What the programs need and a fresh machine does not have."""

import os
import shutil
import subprocess
from pathlib import Path

import setup

TARGET = setup.TARGET / "programs"
VENV = TARGET / "venv"
# boto3 is what tests/main_job.d imports, whose processes are used here.
PACKAGES = ["pyspark==3.5.7", "boto3==1.44.8"]
FLINK = "apache-flink-libraries==1.20.3"
PAGES = setup.ROOT / "docs"


def programs():
    """The directory with curvine-node and cv."""
    programs = Path(os.environ.get("CURVINE_BIN") or setup.TARGET / "debug").resolve()
    if not (programs / "curvine-node").exists():
        raise SystemExit(f"hadoop/programs: {programs / 'curvine-node'} is missing: cargo build --workspace --bins")
    return programs


def jar():
    """The jar of the tree, built for tests."""
    subprocess.run([setup.ROOT / "hadoop" / "build", "--dev"], check=True, stdout=subprocess.DEVNULL)
    return next((setup.TARGET / "hadoop").glob("curvine-hadoop-*.jar"))


def jars(name):
    """A directory of jars that programs.d/pom.xml names."""
    place = TARGET / name
    pom = setup.ROOT / "hadoop" / "programs.d" / "pom.xml"
    stamp = TARGET / "pom.xml"
    if not stamp.exists() or stamp.read_text() != pom.read_text():
        setup.say("fetching the jars of Hadoop's programs")
        for old in ("flink", "hadoop", "lakes", "s3a", "spark"):
            shutil.rmtree(TARGET / old, ignore_errors=True)
        command = ["mvn", "--batch-mode", "--quiet", "--file", pom, f"-Dprograms={TARGET}", "generate-resources"]
        subprocess.run(command, check=True)
        stamp.write_text(pom.read_text())
    return place


def flink():
    """The jars of Flink: most of them from a Python package, which brings its whole distribution."""
    place = TARGET / FLINK
    if not place.exists():
        setup.say(f"downloading {FLINK}")
        fetched = TARGET / "fetched"
        pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", fetched, FLINK], check=True)
        fetched.rename(place)
    return [*jars("flink").glob("*.jar"), *place.glob("pyflink/lib/*.jar"), *place.glob("pyflink/opt/*.jar")]


def moto():
    """A Python that has an S3 server."""
    place = TARGET / "moto"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        setup.say(f"installing {setup.PACKAGES[0]}")
        subprocess.run([VENV / "bin" / "python", "-m", "venv", "--clear", place], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, setup.PACKAGES[0]], check=True)
        (place / "done").touch()
    return python
