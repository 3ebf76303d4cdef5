"""What the programs need and a fresh machine does not have."""

import os
import subprocess
from pathlib import Path

import setup

TARGET = setup.TARGET / "programs"
VENV = TARGET / "venv"
# boto3 is what tests/main_job.d imports, whose processes are used here.
PACKAGES = ["pyspark==3.5.7", "boto3==1.44.8"]
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
