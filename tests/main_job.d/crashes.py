"""Rounds of changes in a mount, in each of which a process dies."""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import setup
from cv import Cv
from machines import DEPLOYMENTS, Moto, Node, Scratch
from report import equal, holds, until

BUCKET, TOP = "crashes", "/crashes"
# What is longer is written in several parts.
LARGE = 20 << 20
# More than one command of the log notes.
MANY = 300
# A client gives up later than a leader and a worker need to come back.
PATIENCE = 90
# Of a client that was killed, the session must end first; then a worker of its file may have to fall silent.
REST = 180

CHANGE = ["change-noted", "change-made", "change-committed"]
EXPORT = ["export-begun", "export-read", "export-confirmed", "export-written", "export-answered", "export-ended"]
COPY = ["object-copied", "object-deleted", "sources-deleted"]


class Round:
    """One change, of a name at the top: what was there, what is to be there, how it is made."""

    def __init__(self, what, words, before, after, points, stdin=None):
        self.what, self.words, self.before, self.after = what, words, before, after
        self.points, self.stdin = points, stdin
        # Also allowed if the client was killed: what `open(O_TRUNC)` and a part of the bytes leave.
        self.partly = None


class Keeper(threading.Thread):
    """Starts again what has died."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.deaths, self.ended = node, 0, threading.Event()
        self.lock = threading.Lock()

    def run(self):
        while not self.ended.wait(0.05):
            for part in self.node.parts:
                if part.process.poll() is not None:
                    with self.lock:
                        self.deaths += 1
                        part.process.stdout.close()
                        part.start()

    def all_live(self):
        with self.lock:
            return all(part.process.poll() is None for part in self.node.parts)


class Crashes:
    def __init__(self, scratch, programs):
        self.points = scratch.path / "points"
        self.points.mkdir()
        self.node = Node(
            scratch, programs, DEPLOYMENTS["group"], mounted=True, environment={"CURVINE_CRASH_POINTS": str(self.points)}
        )
        self.moto = Moto(scratch, "moto")
        self.cv = Cv(programs, self.node)
        # The content of each file below the top, by its path; none for a directory.
        self.model = {}
        self.met = collections.Counter()

    def prepare(self):
        self.node.start()
        self.keeper = Keeper(self.node)
        self.keeper.start()
        self.moto.client.create_bucket(Bucket=BUCKET)
        for number in range(MANY):
            self.moto.put(BUCKET, f"many/{number}", b"%d" % number)
        self.model["many"] = None
        self.model |= {f"many/{number}": b"%d" % number for number in range(MANY)}
        self.cv("mount", f"s3://{BUCKET}", TOP, "--write", "--staleness", "0s", *self.moto.options())
        self.compare()
        return self.keeper

    # What is done

    def below(self, name):
        return {path: content for path, content in self.model.items() if path == name or path.startswith(f"{name}/")}

    def with_subtree(self, *changes):
        """The model with these names replaced by these trees."""
        after = dict(self.model)
        for name, tree in changes:
            for path in self.below(name):
                del after[path]
            after |= tree
        return after

    def choose(self, chance):
        files = sorted(name for name, content in self.model.items() if content is not None and "/" not in name)
        trees = sorted(name for name, content in self.model.items() if content is None and "/" not in name)
        bytes_of = lambda: chance.randbytes(chance.choice([0, 10, 5_000, 1 << 20, LARGE]))  # noqa: E731
        fresh = f"n{chance.randrange(10**6)}"
        kind = chance.choice(["put", "put", "over", "write", "move", "onto", "move-tree", "move-tree", "rm", "rm-tree", "dir", "tree"])
        name = chance.choice(files) if files else None
        if kind in ("over", "move", "onto", "rm") and not name or len(files) < 3:
            kind = "put"
        if kind == "tree" or kind == "rm-tree" and trees == ["many"]:
            # A tree of several files and a directory without any, of one `put`.
            made = {fresh: None, f"{fresh}/d": None, f"{fresh}/e": None}
            made |= {f"{fresh}/d/{number}": chance.randbytes(100) for number in range(chance.randrange(1, 12))}
            return self.tree_round(fresh, made)
        if kind == "put":
            content = bytes_of()
            made = Round("put", ["put", "-", f"{TOP}/{fresh}"], self.model, self.with_subtree((fresh, {fresh: content})), EXPORT, content)
            # A new name is written to as `cp` does: a killed client leaves a beginning.
            made.partly = fresh
            return made
        if kind == "over":
            content = bytes_of()
            after = self.with_subtree((name, {name: content}))
            return Round("put -f", ["put", "-f", "-", f"{TOP}/{name}"], self.model, after, EXPORT, content)
        if kind == "write":
            content = bytes_of()
            name = name or fresh
            made = Round("write", None, self.model, self.with_subtree((name, {name: content})), EXPORT, content)
            made.partly = name
            return made
        if kind == "move":
            after = self.with_subtree((name, {}), (fresh, {fresh: self.model[name]}))
            return Round("mv", ["mv", f"{TOP}/{name}", f"{TOP}/{fresh}"], self.model, after, CHANGE + COPY)
        if kind == "onto":
            other = chance.choice([one for one in files if one != name])
            after = self.with_subtree((name, {}), (other, {other: self.model[name]}))
            return Round("mv onto", ["mv", f"{TOP}/{name}", f"{TOP}/{other}"], self.model, after, CHANGE + COPY)
        if kind == "move-tree":
            tree = chance.choice(trees)
            moved = {fresh + path[len(tree):]: content for path, content in self.below(tree).items()}
            if len(moved) > MANY:
                moved = {"m" + fresh + path[len(fresh):]: content for path, content in moved.items()}
                fresh = f"m{fresh}"
            after = self.with_subtree((tree, {}), (fresh, moved))
            points = CHANGE + COPY * 2 + (["copies-noted"] * 3 if len(moved) > MANY else [])
            return Round("mv tree", ["mv", f"{TOP}/{tree}", f"{TOP}/{fresh}"], self.model, after, points)
        if kind == "rm":
            return Round("rm", ["rm", f"{TOP}/{name}"], self.model, self.with_subtree((name, {})), CHANGE + ["object-deleted"])
        if kind == "rm-tree":
            small = [tree for tree in trees if len(self.below(tree)) < MANY]
            tree = chance.choice(small) if small else None
            if tree:
                points = CHANGE + ["object-deleted"] * 2
                return Round("rm -r", ["rm", "-r", f"{TOP}/{tree}"], self.model, self.with_subtree((tree, {})), points)
        return Round("mkdir", ["mkdir", f"{TOP}/{fresh}"], self.model, self.with_subtree((fresh, {fresh: None})), CHANGE)

    def tree_round(self, top, made):
        """A tree is put file by file: what is there after a crash is a part of it, each file whole."""
        source = self.points.parent / "source" / top
        for path, content in made.items():
            place = source.parent / path
            if content is None:
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        one = Round("put -R", ["put", "-R", str(source), f"{TOP}/{top}"], self.model, self.with_subtree((top, made)), EXPORT)
        one.partly = top
        return one

    def play(self, seed):
        chance = random.Random(seed)
        one = self.choose(chance)
        # A client is killed, or a process at a point, or both.
        kills_client = chance.random() < 0.25
        point = None if kills_client and chance.random() < 0.7 else chance.choice(one.points)
        armed = self.points / point if point else None
        if armed:
            most = {"object-copied": 12, "object-deleted": 4, "export-read": 8}.get(point, 1)
            armed.write_text(str(chance.randrange(most)))
        deaths = self.keeper.deaths
        print(f"{seed}: {one.what}, {point or 'no point'}{', the client killed' if kills_client else ''}", end="", flush=True)
        done = self.perform(one, chance.uniform(0, 0.6) if kills_client else None)
        died = bool(armed) and not armed.exists()
        if armed:
            armed.unlink(missing_ok=True)
        if died:
            self.met[point] += 1
            until(lambda: self.keeper.deaths > deaths, "what died is seen to be dead")
        if kills_client:
            self.met["the client"] += 1
        until(self.keeper.all_live, "everything is up again", PATIENCE)
        print(f": {'done' if done else 'not told'}{', died' if died else ''}", flush=True)
        # Whoever was not told it was done may find either.
        self.compare([one.after] if done else [one.after, one.before], None if done else one)

    def perform(self, one, killed_after):
        """Whether it was acknowledged."""
        if one.words is None:
            return self.write(one, killed_after)
        process = self.cv.start(*one.words, stdin=subprocess.PIPE)
        killer = None
        if killed_after is not None:
            killer = threading.Timer(killed_after, process.kill)
            killer.start()
        try:
            _, errors = process.communicate(one.stdin or b"", timeout=PATIENCE)
        except BrokenPipeError:
            process.wait(timeout=PATIENCE)
            errors = b""
        finally:
            if killer:
                killer.cancel()
        if process.returncode not in (0, -signal.SIGKILL):
            print(f" ({errors.decode().strip()})", end="")
        return process.returncode == 0

    def write(self, one, killed_after):
        """As a program does through the second mount, which is what dies as the client."""
        part = self.node.of("fuse")[1]
        script = "import sys; f = open(sys.argv[1], 'wb', 0); f.write(sys.stdin.buffer.read()); f.close()"
        place = part.mount_point / TOP[1:] / one.partly
        process = subprocess.Popen(
            [sys.executable, "-c", script, place], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        killer = None
        if killed_after is not None:
            killer = threading.Timer(killed_after, part.process.kill)
            killer.start()
        try:
            process.communicate(one.stdin, timeout=PATIENCE)
        finally:
            if killer:
                killer.join()
        return process.returncode == 0

    # What must be there

    def compare(self, allowed=None, partly=None):
        """Waits until nothing is under way; then bucket, mounts and `cv` agree on one of these."""
        until(self.is_idle, f"nothing waits: {self.backlog()}", REST)
        until(lambda: not self.uploads(), f"no upload in parts is left: {self.uploads()}", REST)
        until(lambda: not self.halves(), f"what a killed `put` left goes: {self.halves()}", REST)
        shown = self.shown()
        stored = self.stored()
        files = {path: content for path, content in shown.items() if content is not None}
        self.same(stored, files, "the bucket and the first mount")
        self.same(self.named(), {path: content and len(content) for path, content in shown.items()}, "cv and the first mount", sizes=True)
        candidates = allowed or [self.model]
        if shown not in candidates:
            if not (partly and partly.partly and self.is_part(shown, partly)):
                self.same(shown, candidates[0], "what is there and what should be")
        self.model = shown

    def is_part(self, shown, one):
        """Of what a killed writer wrote: its other files as they were, and each of these as before, empty, or a beginning."""
        rest = lambda tree: {p: c for p, c in tree.items() if p.split("/")[0] != one.partly}  # noqa: E731
        if rest(shown) != rest(one.before):
            return False
        for path, content in shown.items():
            if path.split("/")[0] == one.partly and content is not None and content != one.before.get(path):
                wanted = one.after.get(path)
                if wanted is None or not wanted.startswith(content):
                    return False
        return True

    def same(self, found, expected, what, sizes=False):
        names = sorted(set(found) ^ set(expected))
        holds(not names, f"{what}: only in one: {names[:6]} ({len(names)})")
        for path, content in expected.items():
            if not sizes and content is not None and found[path] != content:
                raise AssertionError(f"{what}: {path} has {len(found[path] or b'')} bytes, not the {len(content)} expected")
            if sizes and (content or 0) != (found[path] or 0):
                raise AssertionError(f"{what}: {path} has {found[path]} bytes, not {content}")

    def backlog(self):
        return next(mount["backlog"] for mount in self.cv.json("mounts") if mount["path"] == TOP)

    def is_idle(self):
        now = self.backlog()
        return now["files"] == 0 and not now["effects"]

    def shown(self):
        """What the first mount shows. What a killed client had asked for may come while it is walked: then it is walked again."""
        for _ in range(5):
            try:
                return self.walked()
            except FileNotFoundError:
                until(self.is_idle, "nothing waits", REST)
        return self.walked()

    def walked(self):
        top = self.node.mount_point / TOP[1:]
        found = {}
        for place, directories, files in os.walk(top, onerror=raise_it):
            relative = Path(place).relative_to(top)
            found |= {str(relative / name): None for name in directories}
            found |= {str(relative / name): (Path(place) / name).read_bytes() for name in files}
        return found

    def named(self):
        """Paths as `cv` shows them, with sizes; none for directories."""
        found = {}
        for entry in self.cv.json("ls", "-R", TOP):
            path = entry["path"].removeprefix(f"{TOP}/")
            found[path] = None if entry["type"] == "directory" else entry["size_bytes"]
        return found

    def uploads(self):
        """Uploads in parts that are under way, or that somebody has left."""
        return self.moto.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])

    def halves(self):
        """What is being put in the place of something else, under a name of its own until it is whole."""
        return [key for key in self.moto.keys(BUCKET) if ".cv-put-" in key]

    def stored(self):
        """The objects, without the markers of directories."""
        keys = [key for key in self.moto.keys(BUCKET) if not key.endswith("/")]
        return {key: self.moto.get(BUCKET, key) for key in keys}


def raise_it(error):
    raise error


def main(about):
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = Scratch(setup.TARGET / "main_job", "crashes")
    passed, failures = 0, []
    keeper = None
    try:
        crashes = Crashes(scratch, setup.with_crash_points(scratch.path / "programs"))
        keeper = crashes.prepare()
        begun = time.monotonic()
        for seed in range(arguments.first, arguments.first + arguments.rounds):
            try:
                crashes.play(seed)
                passed += 1
            except Exception as error:  # noqa: BLE001: whatever it was, the round has failed, and the next has its turn
                failures.append(f"round {seed}: {type(error).__name__}: {error}")
                print(f"\nFAIL  {failures[-1]}", flush=True)
                if arguments.keep:
                    break
                crashes.model = crashes.shown()
    finally:
        if keeper:
            keeper.ended.set()
        scratch.clean(arguments.keep)
    print(f"\nRounds in {time.monotonic() - begun:.0f} s. Who died how often:")
    for point, times in sorted(crashes.met.items()):
        print(f"  {point:20} {times}")
    for failure in failures:
        print(failure)
    print(f"CRASHES: {passed} passed, {len(failures)} failed", flush=True)
    return 1 if failures or not passed else 0
