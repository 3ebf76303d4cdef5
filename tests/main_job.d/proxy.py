"""A proxy in front of an S3 server, which delays, refuses, loses answers and cuts them, where it is told to."""

import http.client
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REFUSALS = {
    400: ("ExpiredToken", "the proxy knows that it has expired"),
    403: ("AccessDenied", "the proxy denies it"),
    503: ("SlowDown", "the proxy asks for patience"),
}


class Rule:
    """What is done to the next `times` requests of a method whose key matches. `COPY` is a PUT from another object."""

    def __init__(self, method, key, times, *, delay=0.0, late=0.0, refuse=None, lose=False, forget=None):
        self.method, self.key, self.times = method, re.compile(key), times
        # Seconds before the server is asked, and before its answer is passed on.
        self.delay, self.late = delay, late
        self.refuse, self.lose = refuse, lose
        # A header that the server does not get to see.
        self.forget = forget
        self.met = 0
        # The server has answered, and its answer is late.
        self.done = threading.Event()

    def meets(self, method, key):
        return self.met < self.times and method == self.method and self.key.fullmatch(key) is not None


class Proxy:
    """Speaks for the server on a port of its own."""

    def __init__(self, server):
        self.behind = urlsplit(server.endpoint)
        self.rules, self.seen, self.lock = [], [], threading.Lock()
        # Access keys that are not taken any more.
        self.expired = set()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def pass_on(self):
                proxy.answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        class Listener(ThreadingHTTPServer):
            def handle_error(self, *peer):
                """A client that goes away, or is killed, is no news: its connection ends."""
                if not isinstance(sys.exc_info()[1], ConnectionError):
                    super().handle_error(*peer)

        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.listener.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.listener.server_address[1]}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def add(self, method, key, times=1, **action):
        """A rule from now on; it counts how often it was met."""
        rule = Rule(method, key, times, **action)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self):
        with self.lock:
            self.rules.clear()

    def count(self, method, key=".*"):
        """How many such requests came."""
        with self.lock:
            return sum(1 for one, name in self.seen if one == method and re.fullmatch(key, name))

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        key = unquote(urlsplit(request.path).path).lstrip("/").partition("/")[2]
        method = "COPY" if "x-amz-copy-source" in request.headers else request.command
        with self.lock:
            self.seen.append((method, key))
            rule = next((rule for rule in self.rules if rule.meets(method, key)), None)
            if rule:
                rule.met += 1
        signed_by = re.search("Credential=([^/,]+)/", request.headers.get("Authorization") or "")
        if signed_by and signed_by.group(1) in self.expired:
            return self.refuse(request, 400)
        if rule and rule.delay:
            time.sleep(rule.delay)
        if rule and rule.refuse:
            return self.refuse(request, rule.refuse)
        connection = http.client.HTTPConnection(self.behind.hostname, self.behind.port, timeout=60)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if not (rule and rule.forget == name.lower()):
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if rule and rule.late:
            rule.done.set()
            time.sleep(rule.late)
        if rule and rule.lose:
            request.close_connection = True
            return None
        try:
            request.send_response_only(reply.status, reply.reason)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    request.send_header(name, value)
            length = reply.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
            request.send_header("Content-Length", length or "0")
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
        except OSError:
            request.close_connection = True
        return None

    def refuse(self, request, status):
        code, message = REFUSALS[status]
        content = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        try:
            request.send_response_only(status)
            request.send_header("Content-Length", str(len(content)))
            request.send_header("Content-Type", "application/xml")
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
        except OSError:
            request.close_connection = True
