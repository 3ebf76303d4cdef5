"""Writing through Curvine: into a bucket, and into its own space."""

import data
from report import equal, holds


def objects(s3, bucket, prefix):
    """Keys but for the markers of directories."""
    return [key for key in s3.keys(bucket, prefix) if not key.endswith("/")]


def write_through(job):
    """A writable mount: what is done through Curvine is done in the bucket"""
    cv = job.cv
    for s3 in job.servers:
        bucket, top = "writable", f"/writable-{s3.name}"
        job.make_bucket(s3, bucket)
        s3.put(bucket, "theirs", b"from outside")
        job.mount(s3, bucket, top, "--write")
        big = bytes(range(256)) * (20 * data.MIB // 256)
        with job.check(f"what is put is an object with these bytes when the command ends ({s3.name})"):
            for name, content in {"small": b"small", "empty": b"", "big": big}.items():
                cv("put", "-", f"{top}/{name}", stdin=content)
                equal(s3.get(bucket, name) == content, True, name)
                equal(cv("cat", f"{top}/{name}") == content, True, f"{name} through Curvine")
        with job.check(f"what exists is replaced only when asked ({s3.name})"):
            cv.refused("put", "-", f"{top}/theirs", stdin=b"mine", says="exists", code=1)
            equal(s3.get(bucket, "theirs"), b"from outside")
            cv("put", "-f", "-", f"{top}/theirs", stdin=b"mine")
            equal((s3.get(bucket, "theirs"), cv("cat", f"{top}/theirs")), (b"mine",) * 2)
        with job.check(f"a tree that is put is the tree in the bucket ({s3.name})"):
            tree = job.source / "python" / "python3.11" / "json"
            if not tree.is_dir():
                tree = next(place for place in sorted(job.source.glob("python/*/*")) if place.is_dir())
            cv("put", "-R", tree, f"{top}/tree")
            equal(objects(s3, bucket, "tree/"), sorted(f"tree/{name}" for name in data.files(tree)))
            cv("get", "-R", f"{top}/tree", job.scratch.path / f"tree-{s3.name}")
            data.same_trees(job.scratch.path / f"tree-{s3.name}", tree)
        with job.check(f"a file that is renamed is renamed in the bucket ({s3.name})"):
            cv("mv", f"{top}/small", f"{top}/renamed")
            equal((s3.keys(bucket, "small"), s3.get(bucket, "renamed")), ([], b"small"))
            equal(cv("cat", f"{top}/renamed"), b"small")
        with job.check(f"a directory that is renamed is renamed in the bucket ({s3.name})"):
            cv("mv", f"{top}/tree", f"{top}/moved")
            moved = sorted(f"moved/{name}" for name in data.files(tree))
            equal((s3.keys(bucket, "tree/"), objects(s3, bucket, "moved/")), ([], moved))
            cv("get", "-R", f"{top}/moved", job.scratch.path / f"moved-{s3.name}")
            data.same_trees(job.scratch.path / f"moved-{s3.name}", tree)
        with job.check(f"what is deleted is gone from the bucket ({s3.name})"):
            cv("rm", f"{top}/renamed", f"{top}/empty")
            cv("rm", "-r", f"{top}/moved")
            equal(s3.keys(bucket), ["big", "theirs"])
            equal(cv.text("ls", "-C", top).split(), [f"{top}/big", f"{top}/theirs"])
        with job.check(f"a directory that is made holds what is put into it ({s3.name})"):
            cv("mkdir", "-p", f"{top}/a/b")
            cv("put", "-", f"{top}/a/b/c", stdin=b"c")
            equal(s3.get(bucket, "a/b/c"), b"c")
            cv("rm", "-r", f"{top}/a")
            equal(s3.keys(bucket), ["big", "theirs"])
        with job.check(f"a change that is refused changes nothing in the bucket ({s3.name})"):
            cv.refused("mkdir", f"{top}/no/parent", says="/no", code=1)
            cv.refused("mv", f"{top}/not-there", f"{top}/x", code=1)
            cv.refused("mv", f"{top}/theirs", f"{top}/big/x", code=1)
            cv.refused("mv", f"{top}/theirs", f"{top}/no/parent", code=1)
            cv.refused("mv", "-n", f"{top}/theirs", f"{top}/big", code=1)
            cv.refused("mv", f"{top}/theirs", "/elsewhere", code=1)
            cv.refused("rm", f"{top}/not-there", code=1)
            equal(s3.keys(bucket), ["big", "theirs"])
            equal(s3.get(bucket, "theirs"), b"mine")
        with job.check(f"what others change in a writable mount shows ({s3.name})"):
            s3.put(bucket, "theirs", b"theirs again")
            s3.put(bucket, "new", b"new")
            job.cv("umount", top)
            job.mount(s3, bucket, top, "--write", "--staleness", "0s")
            equal((cv("cat", f"{top}/theirs"), cv("cat", f"{top}/new")), (b"theirs again", b"new"))
        with job.check(f"awkward names are written as they are ({s3.name})"):
            # s3s-fs has files of metadata with longer names than their keys.
            long = ["n" * 255] if s3 is job.moto else []
            for name in (" leads", "per%20cent", "plus+plus", "ünï 日本", "a&b=c?d#e", *long):
                cv("put", "-", f"{top}/{name}", stdin=name.encode())
                equal((s3.get(bucket, name), cv("cat", f"{top}/{name}")), (name.encode(),) * 2, name)
        job.cv("umount", top)
    with job.check("a read-only mount takes no change and says how it would"):
        job.mount(job.moto, "data", "/moto")
        before = job.moto.keys("data")
        for words in (["put", "-", "/moto/x"], ["mkdir", "/moto/x"], ["rm", "/moto/python/empty"], ["mv", "/moto/python", "/moto/x"],
                      ["rm", "-r", "/moto/python"], ["touch", "/moto/x"]):
            cv.refused(*words, says="read-only", code=1)
        equal(job.moto.keys("data"), before)


def own_files(job):
    """Curvine's own files: a tree goes in and comes out, globs and moves do as in a shell"""
    cv = job.cv
    tree = job.source / "python"
    with job.check("a tree that is put and got is the same"):
        cv("put", "-R", tree, "/own")
        cv("get", "-R", "/own", job.scratch.path / "from-own")
        data.same_trees(job.scratch.path / "from-own", tree)
    with job.check("a directory is renamed at once, and what it holds is what it was"):
        cv("mv", "/own", "/moved")
        cv.refused("ls", "/own", says="/own", code=1)
        equal(cv.json("count", "/moved")[0]["files"], len(data.files(tree)), "files")
        cv("mv", "/moved", "/own")
    with job.check("a glob names what a shell's would"):
        found = cv.text("ls", "-C", "/own/*/*/*.py").split()
        expected = sorted(f"/own/{path.relative_to(tree)}" for path in tree.glob("*/*/*.py"))
        holds(expected, "the tree has no such files")
        equal(found, expected)
    with job.check("what is deleted is gone, and its space comes back"):
        cv("rm", "-r", "/own")
        cv.refused("ls", "/own", code=1)
        holds("own" not in cv.text("ls", "-C", "/"), "still listed")
