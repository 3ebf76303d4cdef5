"""TestDFSIO, NNBench and distcp in the local job runner, as commands, with Curvine as the default file system."""

import os
import re
import shutil
import subprocess
import time

from machines import clean_environment
from report import equal, holds

FILES = 3
MIB = 1 << 20


class Hadoop:
    """Commands of Hadoop with the jar on their class path, as a user."""

    def __init__(self, play, node, jars):
        self.scratch = play.scratch.path
        configuration = self.scratch / "hadoop-conf"
        configuration.mkdir(exist_ok=True)
        keys = {
            "fs.defaultFS": "cv://cluster",
            "fs.cv.masters.cluster": node.master,
            "fs.AbstractFileSystem.cv.impl": "io.curvine.Curvine",
            "hadoop.tmp.dir": f"{self.scratch}/hadoop-tmp",
        }
        rows = "".join(f"<property><name>{name}</name><value>{value}</value></property>\n" for name, value in keys.items())
        (configuration / "core-site.xml").write_text(f"<configuration>\n{rows}</configuration>\n")
        (configuration / "log4j.properties").write_text(
            "log4j.rootLogger=INFO,err\nlog4j.appender.err=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.err.target=System.err\nlog4j.appender.err.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.err.layout.ConversionPattern=%p %c{1}: %m%n\n"
        )
        self.path = f"{configuration}:{play.jar}:{jars}/*"

    def run(self, program, *words, user=None):
        """Exit code, output, and what it logged."""
        environment = clean_environment(**({"HADOOP_USER_NAME": user} if user else {}))
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", self.path, program, *map(str, words)]
        done = subprocess.run(command, env=environment, cwd=self.scratch, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout, done.stderr

    def __call__(self, program, *words, user=None):
        code, out, errors = self.run(program, *words, user=user)
        assert code == 0, f"{program} {' '.join(map(str, words))}: exit code {code}\n{out[-1000:]}\n{errors[-3000:]}"
        return out + errors

    def fs(self, *words, user=None):
        return self("org.apache.hadoop.fs.FsShell", *words, user=user)

    def sizes(self, directory):
        """The files of a directory with their lengths."""
        rows = [line.split() for line in self.fs("-ls", directory).splitlines() if line.startswith("-")]
        return {row[-1].rsplit("/", 1)[1]: int(row[4]) for row in rows}


def dfsio(hadoop, check):
    def run(*words):
        said = hadoop("org.apache.hadoop.fs.TestDFSIO", *words, "-nrFiles", FILES, "-resFile", hadoop.scratch / "dfsio")
        return float(re.search(r"Total MBytes processed: ([0-9.]+)", said)[1])

    for words, mib in ((["-write"], 2), (["-append"], 2), (["-read"], 4), (["-read", "-random"], 2), (["-read", "-backward"], 2),
                       (["-read", "-skip", "-skipSize", "1KB"], 1)):
        with check(f"TestDFSIO {' '.join(words)} of {mib} MiB for each of {FILES} files"):
            holds(run(*words, "-size", f"{mib}MB") >= mib * FILES, "it processed less than it was told to")
            written = 2 if words == ["-write"] else 4
            equal(hadoop.sizes("/benchmarks/TestDFSIO/io_data"), {f"test_io_{n}": written * MIB for n in range(FILES)}, "files")
    with check("TestDFSIO -truncate to 1 MiB"):
        run("-truncate", "-size", "1MB")
        equal(hadoop.sizes("/benchmarks/TestDFSIO/io_data"), {f"test_io_{n}": MIB for n in range(FILES)}, "files")
    with check("TestDFSIO -clean leaves nothing"):
        hadoop("org.apache.hadoop.fs.TestDFSIO", "-clean")
        equal(hadoop.run("org.apache.hadoop.fs.FsShell", "-test", "-e", "/benchmarks/TestDFSIO")[0], 1, "whether it is there")


def nnbench(hadoop, check):
    def run(operation, seconds=5):
        """Its maps wait for a moment that they must all have been started before."""
        words = ["-operation", operation, "-maps", 2, "-numberOfFiles", 50, "-bytesToWrite", 10]
        said = hadoop("org.apache.hadoop.hdfs.NNBench", *words, "-startTime", int(time.time()) + seconds)
        late, exceptions, done = (
            int(re.search(f"{what}: ([0-9]+)", said)[1])
            for what in ("maps that missed the barrier", "# exceptions", "Successful file operations")
        )
        return run(operation, 3 * seconds) if late and seconds < 60 else (late, exceptions, done)

    # What is renamed is not what is deleted.
    for operation in ("create_write", "open_read", "rename", "create_write", "delete"):
        with check(f"NNBench {operation}: 100 files, no exception"):
            equal(run(operation), (0, 0, 100), "late maps, exceptions, and what was done")


def distcp(hadoop, check):
    def copy(*words):
        return hadoop("org.apache.hadoop.tools.DistCp", *words)

    source = hadoop.scratch / "distcp"
    for number in range(20):
        file = source / f"dir {number % 3}" / f"file-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(number * 10_000))

    def same(directory):
        back = hadoop.scratch / "back"
        shutil.rmtree(back, ignore_errors=True)
        hadoop.fs("-get", directory, back)
        return subprocess.run(["diff", "-r", source, back], capture_output=True, text=True).stdout

    with check("distcp copies a tree into Curvine, with its times"):
        copy("-pt", f"file://{source}", "/copied")
        equal(same("/copied"), "", "differences")
    with check("distcp copies within Curvine, compares checksums, and keeps permissions and attributes"):
        hadoop.fs("-setfattr", "-n", "user.note", "-v", "kept", "/copied/dir 0/file-0")
        hadoop.fs("-chmod", "640", "/copied/dir 0/file-0")
        copy("-ppxt", "/copied", "/again")
        equal(same("/again"), "", "differences")
        holds('user.note="kept"' in hadoop.fs("-getfattr", "-d", "/again/dir 0/file-0"), "the attribute is lost")
        holds(hadoop.fs("-ls", "/again/dir 0/file-0").startswith("-rw-r-----"), "the permissions are lost")
    with check("distcp -update -delete copies what differs and removes what is no more"):
        (source / "dir 1" / "file-1").unlink()
        (source / "dir 2" / "new").write_text("new")
        said = copy("-update", "-delete", f"file://{source}", "/copied")
        equal(same("/copied"), "", "differences")
        copied = int(re.search(r"Files Copied=([0-9]+)", said)[1])
        equal(copied, 1, "files that were copied")


def users(hadoop, check):
    with check("files belong to the user of HADOOP_USER_NAME, whose home is /user/NAME"):
        hadoop.fs("-mkdir", "-p", "notes", user="daemon")
        holds(" daemon daemon " in re.sub(" +", " ", hadoop.fs("-ls", "/user/daemon")), hadoop.fs("-ls", "/user/daemon"))
    with check("a user whom the machine does not know is refused, and told why"):
        code, _, errors = hadoop.run("org.apache.hadoop.fs.FsShell", "-ls", "/", user="nobody-knows-me")
        equal(code, 1, f"exit code; {errors}")
        holds("no user `nobody-knows-me` in this machine's /etc/passwd" in errors, errors)
