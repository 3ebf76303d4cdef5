"""A worker with memory, SSD and HDD."""

import shutil
import time

import data
from cv import Cv
from machines import Node
from report import equal, holds, until

OBJECTS, OBJECT_MIB = 6, 4


def tiers(job):
    """What is hot goes up and what is cold goes down; what is kept outlives the memory; tiers are wished for by path"""
    s3, scratch = job.s3s, job.scratch.path
    source = scratch / "source-tiers"
    for number in range(OBJECTS):
        data.big_file(source / f"part-{number}", OBJECT_MIB * data.MIB)
        with open(source / f"part-{number}", "r+b") as part:
            part.write(b"%06d" % number)
    job.make_bucket(s3, "tiers")
    data.upload(s3, "tiers", source)
    places = {tier: scratch / f"tiers-{tier}" for tier in ("mem", "ssd", "hdd")}
    room = {"mem": "16MB", "ssd": "100MB", "hdd": "300MB"}
    directories = ",".join(f"[{tier.upper()}:{room[tier]}]{place}" for tier, place in places.items())
    environment = {"CURVINE_WORKER_DATA_DIRS": directories}
    node = Node(job.scratch, job.programs, job.shape and (1, 1, 0), "node-tiers", environment)
    cv = Cv(job.programs, node)

    def where(path):
        """The tiers of its blocks, each with that of its copy."""
        blocks = cv.json("blocks", path)[0]["blocks"]
        return {(held["tier"], held["copy"]) for block in blocks for held in block["tiers"]}

    def read(path, content):
        equal(cv("cat", path), content)
        time.sleep(1.1)

    def read_until(path, content, expected):
        def is_there():
            read(path, content)
            return where(path) == expected

        until(is_there, f"{path} is in {expected}: {where(path)}", 60)

    small = (source / "part-0").read_bytes()
    try:
        node.start()
        cv("mount", "s3://tiers", "/b", *s3.options(), "--write")
        with job.check("what is read comes to memory; what is colder than the rest goes down and is not fetched again"):
            cv("get", "-R", "/b", scratch / "tiers-first")
            data.same_trees(scratch / "tiers-first", source)
            seen = lambda: {tier for number in range(OBJECTS) for tier, _ in where(f"/b/part-{number}")}  # noqa: E731
            until(lambda: "MEM" in seen() and "SSD" in seen(), f"both are used: {seen()}", 60)
            cached = sum(entry["cached_bytes"] for entry in cv.json("du", "-s", "/b"))
            equal(cached, OBJECTS * OBJECT_MIB * data.MIB)
        with job.check("what is written is on a disk, has a copy in memory when it is hot, and stays when memory is lost"):
            cv("put", source / "part-0", "/kept")
            holds(("MEM", None) not in where("/kept"), f"it is in {where('/kept')}")
            read_until("/kept", small, {("SSD", "MEM")})
            node.kill()
            shutil.rmtree(places["mem"])
            node.start()
            read("/kept", small)
            equal(cv.json("fsck", "/kept")[-1]["faults"], 0)
        with job.check("a rule has blocks go where it says, and says so"):
            cv("tier", "set", "/b/part-1", "hdd")
            part = (source / "part-1").read_bytes()
            read_until("/b/part-1", part, {("HDD", None)})
            cv("mkdir", "/archive")
            cv("tier", "set", "/archive", "hdd")
            cv("put", source / "part-2", "/archive/part-2")
            equal(where("/archive/part-2"), {("HDD", None)})
            equal([rule["path"] for rule in cv.json("tier", "ls")], ["/b/part-1", "/archive"])
            holds(b"HDD" in cv("why", "/archive/part-2"), "cv why says where it is")
            cv("tier", "clear", "/b/part-1")
            cv.refused("tier", "get", "/b/part-1", says="any tier")
    finally:
        node.kill()
