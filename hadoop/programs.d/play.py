"""Starts clusters, and passes the scenarios on them."""

import argparse
import signal
import sys

import setup
import spark
import tools
from machines import Node, Scratch
from report import Report
from session import Session


class Play:
    """What the scenarios work with."""

    def __init__(self, scratch, programs, jar, report):
        self.scratch, self.programs, self.jar, self.report = scratch, programs, jar, report
        self.check = report.check

    def node(self, name, shape=None):
        node = Node(self.scratch, self.programs, shape, name=name)
        node.start()
        return node

    def session(self, node, **options):
        return Session(self.scratch, self.jar, node.master, **options)

    def pass_all(self, checks, session, root, **more):
        for one in checks:
            one(session, root, self.check, scratch=self.scratch, **more)


def small(play):
    """Spark with its own Hadoop, on one node"""
    node = play.node("small")
    with play.session(node) as session:
        play.pass_all(spark.SMALL, session, "cv://cluster/spark")
    with play.check("the node stops cleanly"):
        assert node.stop() == 0, "it did not"


SCENARIOS = {scenario.__name__: scenario for scenario in (small,)}


def main(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    arguments = parser.parse_args()
    for name in arguments.scenarios:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name}; there are: {', '.join(SCENARIOS)}")
    # Being stopped is an exception like any other: what was started is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs, jar = tools.programs(), tools.jar()
    report = Report("HADOOP")
    for name in arguments.scenarios or (["small"] if arguments.small else SCENARIOS):
        scratch = Scratch(setup.TARGET / "programs", name)
        failed = report.failed
        try:
            report.title(SCENARIOS[name].__doc__, name)
            with report.check(f"scenario {name} comes to its end"):
                SCENARIOS[name](Play(scratch, programs, jar, report))
        finally:
            scratch.clean(arguments.keep or report.failed > failed)
    return report.end()
