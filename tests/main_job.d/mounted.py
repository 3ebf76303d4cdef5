"""Everything again through the FUSE mount, by programs that have never heard of Curvine."""

import shutil
import sqlite3
import subprocess

import data
from report import equal, holds, until


def run(*words, **options):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, **options)
    said = (result.stdout + result.stderr).strip()
    assert result.returncode == 0, f"{' '.join(map(str, words))}: exit code {result.returncode}: {said[-1000:]}"
    return result.stdout


def mount_reads(job):
    """Both buckets through the mount: diff finds nothing, cold and warm, and after kill -9 with the mount in use"""
    for s3 in job.servers:
        top = f"/fuse-{s3.name}"
        job.mount(s3, "data", top)
        for heat in ("cold", "warm"):
            with job.check(f"diff -r of the source and the mount is empty, {heat} ({s3.name})"):
                data.same_trees(f"{job.node.mount_point}{top}", job.source_of[s3])
    with job.check("after kill -9 the next start mounts over what was left, without a repair"):
        with open(f"{job.node.mount_point}/fuse-moto/python/empty", "rb"):
            job.node.kill()
        job.node.start()
        data.same_trees(f"{job.node.mount_point}/fuse-moto", job.source_of[job.moto])
    for s3 in job.servers:
        job.cv("umount", f"/fuse-{s3.name}")


def mount_truth(job):
    """What others change in the bucket shows in the mount"""
    for s3 in job.servers:
        job.make_bucket(s3, "fuse-changes")
        for key, content in {"changed": b"one", "gone": b"gone", "dir/kept": b"kept"}.items():
            s3.put("fuse-changes", key, content)
        top = f"/fuse-changes-{s3.name}"
        job.mount(s3, "fuse-changes", top, "--staleness", "0s")
        seen = job.node.mount_point / top[1:]
        with job.check(f"a change, a new object and a deletion show in the mount ({s3.name})"):
            equal({name: (seen / name).read_bytes() for name in data.files(seen)}, {
                "changed": b"one", "gone": b"gone", "dir/kept": b"kept"})
            s3.put("fuse-changes", "changed", b"two, and longer")
            s3.put("fuse-changes", "dir/new", b"new")
            s3.delete("fuse-changes", "gone")
            # The kernel may answer from its memory for the mount's `ttl`.
            until(lambda: (seen / "changed").read_bytes() == b"two, and longer", "the new content")
            until(lambda: not (seen / "gone").exists(), "the deletion")
            until(lambda: data.files(seen) == {"changed": 15, "dir/kept": 4, "dir/new": 3}, "the new listing")
            equal((seen / "dir" / "new").read_bytes(), b"new")
        job.cv("umount", top)
    job.make_bucket(job.moto, "fuse-written")
    job.mount(job.moto, "fuse-written", "/fuse-written", "--write")
    with job.check("what a program writes into a writable mount is an object when it has closed it"):
        tree = job.source / "python"
        source = next(path for path in sorted(tree.rglob("*")) if path.is_file() and path.stat().st_size > 1000)
        place = job.node.mount_point / "fuse-written"
        run("cp", source, place / "copied")
        equal(job.moto.get("fuse-written", "copied") == source.read_bytes(), True, "the object")
        run("mv", place / "copied", place / "moved")
        equal(job.moto.keys("fuse-written"), ["moved"])
        run("rm", place / "moved")
        equal(job.moto.keys("fuse-written"), [])
    job.cv("umount", "/fuse-written")


def mount_programs(job):
    """cp, tar, git and sqlite work in the mount"""
    place = job.node.mount_point / "work"
    place.mkdir()
    tree = job.source / "python"
    with job.check("cp -r copies a tree, and diff finds no difference"):
        run("cp", "-r", tree, place / "copy")
        data.same_trees(place / "copy", tree)
    with job.check("tar packs and unpacks it"):
        run("tar", "-cf", place / "tree.tar", "-C", tree, ".")
        (place / "unpacked").mkdir()
        run("tar", "-xf", place / "tree.tar", "-C", place / "unpacked")
        data.same_trees(place / "unpacked", tree)
    with job.check("git clones a repository, commits in it and finds it sound"):
        origin = job.scratch.path / "origin"
        shutil.copytree(sorted(path for path in tree.glob("*/*") if path.is_dir())[0], origin)
        who = ["-c", "user.name=job", "-c", "user.email=job@localhost", "-c", "init.defaultBranch=main"]
        git = lambda where, *words: run("git", "-C", where, *who, *words)  # noqa: E731
        git(origin, "init", "-q")
        git(origin, "add", "-A")
        git(origin, "commit", "-qm", "first")
        run("git", "clone", "-q", origin, place / "clone")
        (place / "clone" / "more").write_text("more")
        git(place / "clone", "add", "-A")
        git(place / "clone", "commit", "-qm", "second")
        git(place / "clone", "fsck", "--strict")
        git(place / "clone", "gc", "-q")
        equal(git(place / "clone", "status", "--porcelain"), "")
        equal(len(git(place / "clone", "log", "--oneline").splitlines()), 2)
    for mode in ("delete", "truncate", "wal"):
        with job.check(f"sqlite keeps its integrity ({mode})"):
            database = sqlite3.connect(place / f"{mode}.db", timeout=30)
            database.execute(f"pragma journal_mode={mode}")
            database.execute("create table t (n integer primary key, text)")
            for number in range(50):
                with database:
                    database.execute("insert into t values (?, ?)", (number, "x" * number * 100))
            equal(database.execute("pragma integrity_check").fetchone(), ("ok",))
            database.close()
    with job.check("files written before kill -9 and closed are there afterwards"):
        before = data.files(place)
        job.node.kill()
        job.node.start()
        equal(data.files(place), before)
        data.same_trees(place / "copy", tree)
        database = sqlite3.connect(place / "delete.db", timeout=30)
        equal(database.execute("select count(*) from t").fetchone(), (50,))
        database.close()
    with job.check("rm -r takes it all away"):
        run("rm", "-r", place)
        holds("work" not in job.cv.text("ls", "-C", "/"), "still listed")


def two_mounts(job):
    """What is written and closed through one mount is read through every other"""
    first, *others = job.node.mount_points
    for number, other in enumerate(others):
        with job.check("a new file, a replaced one and a deleted one are the same through the other mount"):
            here, there = first / f"shared-{number}", other / f"shared-{number}"
            for content in (b"first", b"second, and longer", b"3"):
                here.write_bytes(content)
                # The kernel there may answer from its memory for the mount's `ttl`.
                until(lambda: there.exists() and there.read_bytes() == content, f"{content!r} on the other mount")
            there.unlink()
            until(lambda: not here.exists(), "the deletion on the first mount")


def mount_ends(job):
    """A clean stop leaves nothing mounted"""
    with job.check("after SIGTERM nothing is mounted, and the directory is an empty one"):
        equal(job.node.stop(), 0)
        mounts = open("/proc/self/mounts").read()
        for mount_point in job.node.mount_points:
            holds(str(mount_point) not in mounts, "still mounted")
            equal(list(mount_point.iterdir()), [])
        job.node.start()
