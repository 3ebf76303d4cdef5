"""Starts clusters, and passes the scenarios on them."""

import argparse
import signal
import sys

import faults
import flink
import hive
import lake_tables
import mapreduce
import mounted_paths
import page
import setup
import spark
import tables
import tools
from machines import Node, Scratch
from report import Report
from session import Session, blocks, here


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


def newer(play):
    """Spark with the classes of Hadoop 3.4, and the manifest committer"""
    node = play.node("newer")
    jars = tools.jars("spark")
    path = ":".join(map(str, [play.jar, *sorted(jars.glob("*.jar"))]))
    hadoop = {"spark.driver.extraClassPath": path, "spark.executor.extraClassPath": path}
    with play.session(node, **hadoop) as session:
        with play.check("the session has the classes of Hadoop 3.4"):
            said = session._jvm.org.apache.hadoop.util.VersionInfo.getVersion()
            assert said.startswith("3.4."), f"it has those of {said}"
        play.pass_all(spark.SMALL, session, "cv://cluster/spark", only=tuple(tables.QUERIES))
    committer = dict(line.split() for line in blocks("spark.md", "properties")[1].splitlines())
    # The same on a local disk, to compare with.
    local = {name.replace("scheme.cv", "scheme.file"): value for name, value in committer.items()}
    with play.session(node, **hadoop, **{**committer, **local}) as session:
        play.pass_all((spark.formats, spark.manifest, spark.kills), session, "cv://cluster/manifest")


def group(play):
    """Three masters and three workers: the leader is killed, and executors of Spark"""
    node = play.node("group", (3, 3, 0))
    with play.session(node, master="local[2,2]") as session:
        faults.leaders(session, "cv://cluster/faults", play, node)
        faults.queried(session, "cv://cluster/faults", play, node)
    with play.session(node, master="local-cluster[2,1,1024]") as session:
        faults.executors(session, "cv://cluster/faults", play)


def jobs(play):
    """Commands of Hadoop, with the local job runner and Curvine as the default file system"""
    node = play.node("jobs")
    hadoop = mapreduce.Hadoop(play, node, tools.jars("hadoop"))
    for one in (mapreduce.users, mapreduce.dfsio, mapreduce.nnbench, mapreduce.distcp):
        one(hadoop, play.check)


def pages(play):
    """The commands of docs/spark.md"""
    node = play.node("pages")
    page.follow("spark.md", play, node)


def tables_of_hive(play):
    """Tables of Hive in Spark"""
    node = play.node("hive")
    with play.session(node, **{"spark.sql.catalogImplementation": "hive"}) as session:
        play.pass_all((hive.tables,), session, "cv://cluster/hive")


def streams(play):
    """Flink's SQL client, as docs/flink.md has it"""
    node = play.node("streams")
    client = flink.Flink(play, node, tools.flink(), tools.jars("hadoop"))
    flink.batch(client, play.check)
    flink.checkpoints(client, play.check, play, node)


def buckets(play):
    """Paths of s3a, of which some are mounted in Curvine"""
    node = play.node("buckets")
    s3, cv = mounted_paths.start(play, node)
    path = ":".join(map(str, [play.jar, *sorted(tools.jars("s3a").glob("*.jar"))]))
    lines = here(blocks("spark.md", "properties")[2], play.jar, node.master).splitlines()
    options = {"spark.driver.extraClassPath": path, **dict(line.split() for line in lines), **s3.keys_of_hadoop()}
    with play.session(node, **options) as session:
        mounted_paths.paths(session, play, s3, cv)


def lakes(play):
    """Tables of Iceberg and Delta Lake, with writers in several processes, and while the leader of three masters is killed"""
    node = play.node("lakes", (3, 3, 0))
    lake_tables.iceberg(play, node)
    lake_tables.delta(play, node)


SCENARIOS = {scenario.__name__: scenario for scenario in (
    small, newer, group, jobs, pages, tables_of_hive, lakes, streams, buckets,
)}


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
