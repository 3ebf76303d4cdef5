"""Writing through Curvine: into a bucket, and into its own space."""

import os
import shutil
import sqlite3
import subprocess

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


def run(*words, cwd=None):
    """A program that has never heard of Curvine, and must succeed."""
    words = [str(word) for word in words]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    holds(result.returncode == 0, f"{' '.join(words)}: exit code {result.returncode}: {result.stderr.strip()[-1000:]}")
    return result.stdout


def bucket_is(s3, bucket, place, into):
    """Compares a bucket with the mount, and copies it to a directory."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for key in objects(s3, bucket, ""):
        (into / key).parent.mkdir(parents=True, exist_ok=True)
        (into / key).write_bytes(s3.get(bucket, key))
    equal(data.files(into), data.files(place), "sizes in the bucket, and in the mount")
    for name in data.files(into):
        equal((into / name).read_bytes() == (place / name).read_bytes(), True, name)


def write_programs(job):
    """Programs that append, write in place and replace leave in the bucket what they wrote"""
    for s3 in job.servers:
        bucket, top = "programs", f"/programs-{s3.name}"
        job.make_bucket(s3, bucket)
        lines = b"one\ntwo\n"
        theirs = {"log": b"one\n", "text": lines, "edited": lines, "large": bytes(range(256)) * 20_000}
        for key, content in theirs.items():
            s3.put(bucket, key, content)
        job.mount(s3, bucket, top, "--write")
        place, copy = job.node.mount_point / top[1:], job.scratch.path / f"programs-{s3.name}"
        shell = lambda script: run("sh", "-ec", script, cwd=place)  # noqa: E731
        with job.check(f"a shell appends to an object, and several programs write to one redirection ({s3.name})"):
            shell("echo two >> log; /bin/echo three >> log")
            equal(s3.get(bucket, "log"), b"one\ntwo\nthree\n")
            job.cv("free", top)
            shell("{ echo four; /bin/echo five; (/bin/echo six); } >> log")
            equal(s3.get(bucket, "log"), b"one\ntwo\nthree\nfour\nfive\nsix\n")
            shell("{ echo a; /bin/echo b; (/bin/echo c); } > many; { /bin/echo d; /bin/echo e; } > many")
            equal(s3.get(bucket, "many"), b"d\ne\n")
        with job.check(f"sed -i, vim, dd and truncate change objects ({s3.name})"):
            shell("sed -i s/two/three/ text")
            equal(s3.get(bucket, "text"), b"one\nthree\n")
            if shutil.which("vim"):
                shell("vim -es -u NONE -i NONE -c '%s/two/three/' -c wq edited")
                equal(s3.get(bucket, "edited"), b"one\nthree\n")
            shell("printf XYZ | dd of=large conv=notrunc bs=1 seek=1000000 status=none; truncate -s 4000000 large")
            expected = bytearray(theirs["large"][:4_000_000])
            expected[1_000_000:1_000_003] = b"XYZ"
            job.cv("persist", top)
            equal(s3.get(bucket, "large") == expected, True, "the object")
        with job.check(f"rsync --inplace changes an object, and sends nothing the second time ({s3.name})"):
            source = job.scratch.path / "rsync-source"
            source.write_bytes(bytes(expected[::-1]))
            # Of the same size and second it would not be sent at all.
            os.utime(source, (1_000_000_000, 1_000_000_000))
            rsync = ["rsync", "--inplace", "--no-whole-file", "--times", "--stats", source, place / "large"]
            run(*rsync)
            equal(s3.get(bucket, "large") == source.read_bytes(), True, "the object")
            holds("transferred: 0\n" in run(*rsync), "it is sent again")
        # The other one fails when it is asked for the name of a directory, and git makes them one in the other.
        if s3 is job.moto:
            with job.check(f"git commits into a repository, and the bucket has all of it ({s3.name})"):
                who = ["-c", "user.name=job", "-c", "user.email=job@localhost", "-c", "init.defaultBranch=main"]
                # Nothing that goes on in the background when a command has ended.
                who += ["-c", "gc.auto=0", "-c", "maintenance.auto=false"]
                git = lambda where, *words: run("git", "-C", where, *who, *words)  # noqa: E731
                repository = place / "repository"
                repository.mkdir()
                git(repository, "init", "-q")
                for number in range(3):
                    with open(repository / "file", "a", encoding="utf-8") as file:
                        file.write(f"line {number}\n")
                    git(repository, "add", "-A")
                    git(repository, "commit", "-qm", f"commit {number}")
                git(repository, "gc", "-q")
                git(repository, "commit", "--allow-empty", "-qm", "after the packing")
                job.cv("persist", top)
                bucket_is(s3, bucket, place, copy)
                # What is an empty directory is no object, and git wants it.
                (copy / "repository" / ".git" / "refs" / "heads").mkdir(parents=True, exist_ok=True)
                git(copy / "repository", "fsck", "--strict")
                equal(len(git(copy / "repository", "log", "--oneline").splitlines()), 4, "commits")
                equal(git(copy / "repository", "status", "--porcelain"), "")
        for mode in ("delete", "truncate", "wal"):
            with job.check(f"sqlite changes a database, and the bucket has all of it ({mode}, {s3.name})"):
                for begun in (0, 10):
                    job.cv("free", top)
                    database = sqlite3.connect(place / f"{mode}.db", timeout=30)
                    database.execute(f"pragma journal_mode={mode}")
                    database.execute("create table if not exists t (n integer primary key, text)")
                    for number in range(begun, begun + 10):
                        with database:
                            database.execute("insert into t values (?, ?)", (number, "x" * number * 1_000))
                            database.execute("update t set text = text || 'y' where n = ?", (number // 2,))
                    database.close()
                    job.cv("persist", top)
                    bucket_is(s3, bucket, place, copy)
                    database = sqlite3.connect(copy / f"{mode}.db")
                    equal(database.execute("pragma integrity_check").fetchone(), ("ok",))
                    equal(database.execute("select count(*) from t").fetchone(), (begun + 10,), "rows")
                    database.close()
        job.cv("umount", top)


def write_attributes(job):
    """Modes, owners, times and extended attributes survive in the bucket"""
    source = job.scratch.path / "attributes-source"
    (source / "below").mkdir(parents=True)
    for number, (name, mode) in enumerate({"plain": 0o644, "secret": 0o600, "below/script": 0o755, "empty": 0o444}.items()):
        path = source / name
        path.write_bytes(b"" if name == "empty" else name.encode() * 1_000)
        os.setxattr(path, "user.note", f"note of {name}".encode())
        os.chown(path, 1_000 + number, 2_000 + number)
        os.chmod(path, mode)
        # Odd to the nanosecond.
        os.utime(path, ns=(7, 1_234_567_890_000_000_000 + 123_456_789 * number))
    # A directory of a bucket is no object: what it has of attributes is Curvine's alone.
    rsync = ["rsync", "-aX", "--omit-dir-times", "--itemize-changes", f"{source}/"]
    for s3 in job.servers:
        bucket, top = "attributes", f"/attributes-{s3.name}"
        job.make_bucket(s3, bucket)
        job.mount(s3, bucket, top, "--write")
        place = job.node.mount_point / top[1:]
        with job.check(f"rsync -aX sends nothing the second time ({s3.name})"):
            run(*rsync, place)
            equal(run(*rsync, place), "")
            job.cv("persist", top)
            equal(run(*rsync, place), "")
        with job.check(f"the objects have the attributes as s3fs and rclone write them ({s3.name})"):
            kept = s3.client.head_object(Bucket=bucket, Key="secret")["Metadata"]
            found = tuple(kept.get(name) for name in ("mode", "uid", "gid", "mtime"))
            equal(found, (str(0o100600), "1001", "2001", "1234567890.123456789"))
        with job.check(f"it sends nothing when nothing is cached any more ({s3.name})"):
            job.cv("free", top)
            equal(run(*rsync, place), "")
            data.same_trees(place, source)
        with job.check(f"it sends nothing after the bucket was mounted anew ({s3.name})"):
            job.cv("umount", top)
            # Under another name, of which no kernel remembers anything.
            top, place = f"{top}-anew", place.with_name(f"{place.name}-anew")
            job.mount(s3, bucket, top, "--write")
            equal(run(*rsync, place), "")
            data.same_trees(place, source)
        with job.check(f"mv and chmod keep times, also where the bucket is mounted anew ({s3.name})"):
            before = (source / "plain").stat().st_mtime_ns
            run("mv", place / "plain", place / "moved")
            os.chmod(place / "moved", 0o640)
            job.cv("persist", top)
            job.cv("umount", top)
            top, place = f"{top}-again", place.with_name(f"{place.name}-again")
            job.mount(s3, bucket, top, "--write")
            stat = (place / "moved").stat()
            equal((stat.st_mtime_ns, stat.st_mode & 0o7777), (before, 0o640))
        job.cv("umount", top)


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
