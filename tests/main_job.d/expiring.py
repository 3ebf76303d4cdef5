"""Files whose time to live is over."""

import time

import data
from report import equal, holds, until

FILES = 300


def names(cv, top):
    return sorted(entry["path"].rsplit("/", 1)[-1] for entry in cv.json("ls", top))


def expiry(job):
    """Files go when their time is over: from the namespace, the bucket and the cache; what is open waits; the leader dies"""
    cv, s3 = job.cv, job.moto
    job.make_bucket(s3, "expiry")
    for key in ("gone/old", "kept/old", "freed/a", "freed/b"):
        s3.put("expiry", key, key.encode() * 100)
    job.mount(s3, "expiry", "/expiry", "--write")
    with job.check("objects go when they are due, also new ones, and no others"):
        cv("put", "-", "/expiry/gone/new", stdin=b"new")
        cv("ttl", "set", "/expiry/gone", "--after", "4s", "--action", "delete")
        until(lambda: names(cv, "/expiry/gone") == [], "nothing is left", 60)
        until(lambda: s3.keys("expiry", "gone/") == [] or s3.keys("expiry", "gone/") == ["gone/"], "the objects are gone", 60)
        equal(names(cv, "/expiry/kept"), ["old"])
    with job.check("what is cached is let go of, and read again from the bucket"):
        cv("load", "/expiry/freed", "--watch")
        holds(cv.json("du", "-s", "/expiry/freed")[0]["cached_bytes"] > 0, "it is cached")
        cv("ttl", "set", "/expiry/freed", "--after", "3s", "--action", "free")
        until(lambda: cv.json("du", "-s", "/expiry/freed")[0]["cached_bytes"] == 0, "nothing is cached", 60)
        equal(cv("cat", "/expiry/freed/a"), b"freed/a" * 100)
    with job.check("nothing in a read-only mount is to be deleted, and the refusal says what can be done"):
        job.mount(s3, "expiry", "/expiry-read")
        cv.refused("ttl", "set", "/expiry-read", "--after", "1h", "--action", "delete", says=["read-only", "`free`"])
        cv("umount", "/expiry-read")
    seen = job.node.mount_point / "expiring"
    with job.check("the files of a tree go on time when the leader is killed; what is open waits until it is closed"):
        data.big_file(job.scratch.path / "expiring" / "sub" / "0", 10_000)
        for number in range(1, FILES):
            (job.scratch.path / "expiring" / "sub" / str(number)).write_bytes(b"%d" % number)
        cv("put", "-R", job.scratch.path / "expiring", "/expiring")
        (seen / "late").write_bytes(b"late")
        with open(seen / "sub" / "7", "rb") as held:
            cv("ttl", "set", "/expiring", "--after", "8s", "--action", "delete", "--from", "access")
            masters = job.node.of("master")
            if masters:
                leader = next(master["id"] for master in cv.json("report")[0]["masters"] if master["role"] == "leader")
                masters[leader - 1].kill()
                if len(masters) == 1:
                    masters[0].start()
            begun = time.monotonic()
            while time.monotonic() - begun < 6:
                # It is accessed again and again.
                equal((seen / "late").read_bytes(), b"late")
                time.sleep(0.5)
            until(lambda: names(cv, "/expiring/sub") == ["7"], "only what is open is left", 90)
            equal(held.read(), b"7")
            if len(masters) > 1:
                masters[leader - 1].start()
        until(lambda: names(cv, "/expiring/sub") == [], "what was open is gone", 60)
        until(lambda: names(cv, "/expiring") == ["sub"], "what was read until then is gone as well", 60)
    with job.check("rules are listed, and are gone when they are taken away"):
        equal([rule["path"] for rule in cv.json("ttl", "ls")], ["/expiry/gone", "/expiry/freed", "/expiring"])
        cv("ttl", "clear", "/expiring")
        cv.refused("ttl", "get", "/expiring", says="no time to live")
    cv("umount", "/expiry")
    equal(cv.json("ttl", "ls"), [])
