"""Prepares the job, runs its scenarios, cleans up."""

import argparse
import os
import shutil
import signal
import sys
import time

import data
import scenarios
import setup
from cv import Cv
from machines import DEPLOYMENTS, USUAL, Moto, Node, S3sFs, Scratch
from report import Report


class Job:
    """What the scenarios work with."""

    def __init__(self, scratch, report, programs, full, shape):
        self.scratch, self.report, self.full, self.shape = scratch, report, full, shape
        self.programs = programs
        self.check = report.check
        self.source = scratch.path / "source"
        self.node = Node(scratch, programs, shape, mounted=True)
        self.cv = Cv(programs, self.node)
        self.moto = self.s3s = None
        self.big = self.source / "big.bin"

    @property
    def servers(self):
        return [self.moto, self.s3s]

    def prepare(self):
        self.moto = Moto(self.scratch, "moto")
        self.s3s = S3sFs(self.scratch, "s3s", setup.s3s_fs())
        data.make(self.source, self.full)
        # moto reads the whole object for every range of it: a big one would show the speed of moto.
        self.make_bucket(self.moto, "data")
        data.upload(self.moto, "data", self.source)
        data.big_file(self.big, (2048 if self.full else 256) * data.MIB)
        self.make_bucket(self.s3s, "data")
        data.upload(self.s3s, "data", self.source)
        # The same tree without the big file, to compare with what comes from moto.
        self.source_of = {self.s3s: self.source, self.moto: self.scratch.path / "source-moto"}
        shutil.copytree(self.source, self.source_of[self.moto], copy_function=os.link)
        (self.source_of[self.moto] / self.big.name).unlink()

    def make_bucket(self, s3, name):
        s3.client.create_bucket(Bucket=name)

    def mount(self, s3, bucket, path, *more, **options):
        """Mounts, unless it is there already."""
        if path not in [mount["path"] for mount in self.cv.json("mounts")]:
            self.cv("mount", f"s3://{bucket}", path, *s3.options(**options), *more)


def main(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", default=bool(os.environ.get("MAIN_JOB_FULL")))
    parser.add_argument("--release", action="store_true", default=bool(os.environ.get("MAIN_JOB_RELEASE")))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--deployment", action="append", choices=DEPLOYMENTS)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    arguments = parser.parse_args()
    known = scenarios.by_name()
    for name in arguments.scenarios:
        if name not in known:
            parser.error(f"no scenario {name}; there are: {', '.join(known)}")
    # Being stopped is an exception like any other: what was started is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    programs = setup.binaries(arguments.release)
    report = Report()
    deployments = arguments.deployment or USUAL
    for deployment in deployments:
        chosen = arguments.scenarios or known
        if not arguments.scenarios and deployment != deployments[-1]:
            chosen = known.keys() - scenarios.played_once()
        setup.say(f"deployment: {deployment}")
        scratch = Scratch(setup.TARGET / "main_job", deployment)
        job = Job(scratch, report, programs, arguments.full, DEPLOYMENTS[deployment])
        try:
            play(job, known, chosen, deployment)
        finally:
            scratch.clean(arguments.keep)
    return report.end()


def play(job, known, chosen, deployment):
    """Runs the scenarios, or those that were chosen, in one deployment."""
    report, begun = job.report, time.monotonic()
    job.prepare()
    found = data.files(job.source)
    megabytes = sum(found.values()) // data.MIB
    setup.say(f"{len(found)} files, {megabytes} MiB in two buckets after {time.monotonic() - begun:.0f} s")
    for name, scenario in known.items():
        if name not in chosen and name != "start":
            continue
        report.title(f"{name}: {scenario.__doc__.splitlines()[0]}", f"{name} in {deployment}")
        with_failures = report.failed
        try:
            scenario(job)
        except Exception as error:  # noqa: BLE001: a scenario that cannot go on is a failure, and the next has its turn
            with report.check(f"{name} goes on to its end"):
                raise error
        if report.failed > with_failures:
            for part in job.node.parts:
                setup.say(f"the end of {part.log}:\n" + "".join(part.log.open().readlines()[-8:]))
