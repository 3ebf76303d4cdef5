"""Starts a cluster and the servers, checks the list on each, cleans up."""

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import claims
import setup
from azurite import Azurite
from ceph import Ceph
from cv import Cv
from fake_gcs import FakeGcs
from hdfs import Hdfs, WebHdfs
from machines import Node, Scratch
from moto_cos_obs import MotoCos, MotoObs
from moto_oss import MotoOss
from report import Report, until

STORES = {store.name: store for store in (Azurite, Hdfs, WebHdfs, MotoOss, MotoCos, MotoObs, Ceph, FakeGcs)}
# A master, a worker and a mount, each a process.
SHAPE = (1, 1, 1)


class Trial:
    """What the claims work with: a cluster, and one store."""

    def __init__(self, scratch, report, node, cv, store):
        self.scratch, self.report, self.node, self.cv, self.store = scratch, report, node, cv, store

    @contextlib.contextmanager
    def check(self, claim):
        with self.report.check(f"{claim} ({self.store.name})"):
            yield

    @contextlib.contextmanager
    def mounted(self, prefix, *more):
        """Something of the store, mounted: its path, and the same in the file system of this machine."""
        top = f"/{self.store.name}-{prefix}"
        self.cv("mount", self.store.uri(prefix), top, *self.store.options(), *more)
        try:
            yield top, self.node.mount_point / top[1:]
            self.cv("umount", top)
        except Exception:
            # What waits will not be written either: the next claim must not find this mount.
            self.cv.run("umount", "--force", top)
            raise

    def is_idle(self, top):
        backlog = next(mount["backlog"] for mount in self.cv.json("mounts") if mount["path"] == top)
        return backlog["files"] == 0 and not backlog["effects"]

    def settled(self, top):
        until(lambda: self.is_idle(top), "nothing waits to be written", 60)


def main(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--claim", action="append", metavar="NAME")
    parser.add_argument("stores", nargs="*", metavar="STORE")
    arguments = parser.parse_args()
    for name in arguments.stores:
        if name not in STORES:
            parser.error(f"no store {name}; there are: {', '.join(STORES)}")
    known = {claim.__name__ for claim in claims_of(*STORES.values())}
    for name in arguments.claim or ():
        if name not in known:
            parser.error(f"no claim {name}; there are: {', '.join(sorted(known))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    built = os.environ.get("CURVINE_BIN")
    programs = Path(built) if built else setup.binaries(arguments.release)
    scratch = Scratch(setup.TARGET / "real_stores", "stores")
    report, lines = Report("REAL STORES"), []
    try:
        node = Node(scratch, programs, SHAPE, mounted=True)
        node.start()
        for name in arguments.stores or STORES:
            lines.append(play(STORES[name], scratch, report, node, Cv(programs, node), arguments.claim))
    finally:
        scratch.clean(arguments.keep)
    print("\n" + "\n".join(lines))
    return report.end()


def claims_of(*kinds):
    return [*(claim for kind in kinds for claim in kind.own_claims), *claims.in_order()]


def play(kind, scratch, report, node, cv, only):
    """Checks the list on one store, or these of it; the line that says how it went."""
    before = report.passed, report.failed, report.skipped
    begun = time.monotonic()
    with report.check(f"{kind.name} is installed, and serves"):
        store = kind(scratch)
        store.start()
        store.make_bucket()
        trial = Trial(scratch, report, node, cv, store)
        report.title(f"{kind.name}, mounted as {kind.scheme}://", kind.name)
        for claim in claims_of(kind):
            if not only or claim.__name__ in only:
                begin(trial, claim)
        store.kill()
    after = report.passed, report.failed, report.skipped
    passed, failed, skipped = (now - then for now, then in zip(after, before))
    counts = f"{passed} passed, {failed} failed, {skipped} skipped"
    return f"{kind.name:8} {kind.scheme:8} {counts} in {time.monotonic() - begun:.0f} s"


def begin(trial, claim):
    """One claim of the list, or why it is not asked of this store."""
    why = trial.store.without.get(claim.__name__)
    if why:
        with trial.check(f"docs/stores.md says why {claim.__name__} is not offered"):
            said = " ".join((setup.ROOT / "docs" / "stores.md").read_text().split())
            assert why in said, f"it does not say: {why}"
        trial.report.skip(f"{claim.__doc__} ({trial.store.name})", why)
        return
    try:
        claim(trial)
    except Exception as error:  # noqa: BLE001: a claim that cannot go on has failed, and the next has its turn
        with trial.check(f"{claim.__name__} goes on to its end"):
            raise error
