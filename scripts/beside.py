#!/usr/bin/env python3
"""Measures a ring of five beside three members of etcd, and three nodes of Garage, on this machine, in turns.

Needs etcd and wrk (Debian: etcd-server, wrk); Garage's part runs where GARAGE names its program (cargo install garage).
Everything runs on loopback, under a directory of its own, and only processes started here are ended.
Use: [GARAGE=PROGRAM] beside.py PROGRAM [ROUNDS]
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
GARAGE = os.environ.get("GARAGE")
HOME = tempfile.mkdtemp(prefix="beside-")
KEYS = 1000
SECONDS = 6

WRK = {
    "chordkv": """
local n = 0
request = function()
  n = n + 1
  local path = "/v1/kv/bench-" .. math.random(0, %(keys)d - 1)
  if "%(what)s" == "get" then return wrk.format("GET", path) end
  return wrk.format("PUT", path, nil, string.rep("0", 90) .. string.format("%%010d", n))
end""",
    "etcd": """
local n = 0
local hex = {}
request = function()
  n = n + 1
  local key = string.format("bench-%%06d", math.random(0, %(keys)d - 1))
  local b64 = key:gsub("...", function(s)
    local a, b, c = s:byte(1, 3)
    local v = a * 65536 + b * 256 + c
    local abc = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    local out = ""
    for i = 3, 0, -1 do
      local at = math.floor(v / 64 ^ i) %% 64 + 1
      out = out .. abc:sub(at, at)
    end
    return out
  end)
  if "%(what)s" == "get" then return wrk.format("POST", "/v3/kv/range", nil, '{"key":"' .. b64 .. '"}') end
  local value = string.rep("0", 126) .. string.format("%%010d", n)
  return wrk.format("POST", "/v3/kv/put", nil, '{"key":"' .. b64 .. '","value":"' .. value .. '"}')
end""",
    # Requests of Garage's K2V are signed beforehand: in Lua that would be what is measured.
    "garage": """
local n, asks = 0, {}
for line in io.lines("%(asks)s") do
  local path, date, signature = line:match("(%%S+) (%%S+) (.+)")
  asks[#asks + 1] = {path, {["x-amz-date"] = date, ["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD",
    ["accept"] = "application/octet-stream", ["authorization"] = signature}}
end
request = function()
  n = n + 1
  local ask = asks[(n - 1) %% #asks + 1]
  if "%(what)s" == "get" then return wrk.format("GET", ask[1], ask[2]) end
  return wrk.format("PUT", ask[1], ask[2], string.rep("0", 90) .. string.format("%%010d", n))
end""",
}
if not GARAGE:
    del WRK["garage"]


class Garage:
    """Three nodes of Garage with three copies of each item, as its manual sets them up; `http` holds the ports of K2V."""

    kind = "garage"

    def __init__(self, base):
        self.processes, self.http, self.turn = [], [base + 200 + n for n in range(3)], 0
        secret = os.urandom(32).hex()
        for n in range(3):
            where = f"{HOME}/garage-{n}"
            os.makedirs(where)
            with open(f"{where}/garage.toml", "w") as file:
                file.write(
                    f'metadata_dir = "{where}/meta"\ndata_dir = "{where}/data"\ndb_engine = "sqlite"\n'
                    f'replication_factor = 3\nrpc_bind_addr = "127.0.0.1:{base + n}"\n'
                    f'rpc_public_addr = "127.0.0.1:{base + n}"\nrpc_secret = "{secret}"\n'
                    f'[s3_api]\ns3_region = "garage"\napi_bind_addr = "127.0.0.1:{base + 100 + n}"\n'
                    f'[k2v_api]\napi_bind_addr = "127.0.0.1:{self.http[n]}"\n'
                )
            log = open(f"{where}.log", "w")
            self.processes.append(subprocess.Popen([GARAGE, "-c", f"{where}/garage.toml", "server"], stdout=log, stderr=log))
        try:
            self.form()
        except BaseException:
            self.end()
            raise

    def said(self, *words, of=0):
        command = [GARAGE, "-c", f"{HOME}/garage-{of}/garage.toml", *words]
        return subprocess.run(command, capture_output=True, text=True).stdout

    def form(self):
        until(lambda: all(self.said("node", "id", "-q", of=n) for n in range(3)), "garage runs")
        names = [self.said("node", "id", "-q", of=n).strip() for n in range(3)]
        for name in names[1:]:
            until(lambda: "Success" in self.said("node", "connect", name), "garage is connected")
        for name in names:
            self.said("layout", "assign", "-z", "here", "-c", "1G", name.split("@")[0])
        self.said("layout", "apply", "--version", "1")
        said = self.said("key", "create", "beside")
        fields = dict(line.split(":", 1) for line in said.splitlines() if line.count(":") == 1)
        self.key, self.secret = fields["Key ID"].strip(), fields["Secret key"].strip()
        self.said("bucket", "create", "bench")
        self.said("bucket", "allow", "--read", "--write", "bench", "--key", "beside")
        until(lambda: self.put(self.http[0], "warm", b"up"), "garage is ready")

    def signed(self, method, port, key):
        """Path, date and signature (AWS signature version 4) of a request that is good for some minutes."""
        date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        names, plain = "host;x-amz-content-sha256;x-amz-date", "UNSIGNED-PAYLOAD"
        fields = f"host:127.0.0.1:{port}\nx-amz-content-sha256:{plain}\nx-amz-date:{date}\n"
        canonical = f"{method}\n/bench/bench\nsort_key={key}\n{fields}\n{names}\n{plain}"
        scope = f"{date[:8]}/garage/k2v/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        secret = ("AWS4" + self.secret).encode()
        for part in (*scope.split("/"), text):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        signature = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope},SignedHeaders={names},Signature={secret.hex()}"
        return f"/bench/bench?sort_key={key}", date, signature

    def put(self, port, key, value):
        path, date, signature = self.signed("PUT", port, key)
        fields = {"x-amz-date": date, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "authorization": signature}
        return ask(port, "PUT", path, value, fields=fields)[0] in (200, 204)

    def asks(self, what):
        """A file of requests. Puts are of keys that are not there: of others they would add one value to another."""
        self.turn += 1
        keys = [f"bench-{n:06}" for n in range(KEYS)] if what == "get" else [f"put-{self.turn}-{n}" for n in range(60_000)]
        method = what.upper()
        with open(f"{HOME}/asks", "w") as file:
            file.writelines(" ".join(self.signed(method, self.http[1], key)) + "\n" for key in keys)
        return f"{HOME}/asks"

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Cluster:
    """Processes of one kind; `http` holds the port of each."""

    def __init__(self, kind, count, base):
        self.kind, self.processes = kind, []
        self.http = [base + 100 + n for n in range(count)]
        peers = ",".join(f"n{n}=http://127.0.0.1:{base + n}" for n in range(count))
        for n in range(count):
            where = f"{HOME}/{kind}-{n}"
            peer, client = base + n, self.http[n]
            if kind == "chordkv":
                command = [PROGRAM, "node", "--listen", f"127.0.0.1:{peer}", "--http", f"127.0.0.1:{client}"]
                command += ["--data-dir", where] + (["--join", f"127.0.0.1:{base}"] if n else [])
            else:
                command = ["etcd", "--name", f"n{n}", "--data-dir", where, "--initial-cluster", peers]
                for flag in ("--listen-peer-urls", "--initial-advertise-peer-urls"):
                    command += [flag, f"http://127.0.0.1:{peer}"]
                for flag in ("--listen-client-urls", "--advertise-client-urls"):
                    command += [flag, f"http://127.0.0.1:{client}"]
            log = open(f"{where}.log", "w")
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        try:
            until(self.ready, f"{kind} is ready")
        except BaseException:
            self.end()
            raise

    def ready(self):
        if self.kind == "chordkv":
            status, body = ask(self.http[0], "GET", "/v1/ring")
            ring = json.loads(body) if status == 200 else {}
            return ring.get("settled") and len(ring["nodes"]) == len(self.http)
        return all(self.put(port, "warm", b"up") for port in self.http)

    def put(self, port, key, value, within=10):
        """Whether a put of `key` through the node at `port` was acknowledged."""
        if self.kind == "chordkv":
            return ask(port, "PUT", f"/v1/kv/{key}", value, within)[0] in (200, 201, 204)
        text = lambda b: base64.b64encode(b).decode()
        body = json.dumps({"key": text(key.encode()), "value": text(value)}).encode()
        return ask(port, "POST", "/v3/kv/put", body, within)[0] == 200

    def leader(self):
        """The member whose death hurts most: etcd's leader, any node of a ring."""
        if self.kind == "chordkv":
            return len(self.http) - 1
        for n, port in enumerate(self.http):
            said = json.loads(ask(port, "POST", "/v3/maintenance/status", b"{}")[1])
            if said["leader"] == said["header"]["member_id"]:
                return n
        raise SystemExit("etcd has no leader")

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def ask(port, method, path, body=None, within=10, fields=None):
    """Status and body; status 0 where there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
    try:
        connection.request(method, path, body, fields or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds} s; see {HOME}")
        time.sleep(0.05)


def wrk(cluster, what):
    """Requests per second at 50 connections through one node."""
    script = f"{HOME}/{cluster.kind}-{what}.lua"
    with open(script, "w") as file:
        asks = cluster.asks(what) if cluster.kind == "garage" else ""
        file.write(WRK[cluster.kind] % {"keys": KEYS, "what": what, "asks": asks})
    url = f"http://127.0.0.1:{cluster.http[1]}"
    command = ["wrk", "-t1", "-c50", f"-d{SECONDS}s", "-s", script, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise SystemExit(said)
    return float(next(line.split()[1] for line in said.splitlines() if "Requests/sec" in line))


def kill(cluster):
    """A put every 10 ms through one node, each of another key, while another is killed."""
    asks, threads, lock = [], [], threading.Lock()
    victim = cluster.leader()
    port = cluster.http[0 if victim else 1]

    def probe(n):
        began = time.monotonic()
        done = cluster.put(port, f"probe-{n:06}", b"%d" % n)
        with lock:
            asks.append((began, time.monotonic(), done))

    start, killed = time.monotonic(), None
    for n in range(600):
        time.sleep(max(0, start + n * 0.01 - time.monotonic()))
        if n == 200:
            cluster.processes[victim].send_signal(signal.SIGKILL)
            killed = time.monotonic()
        threads.append(threading.Thread(target=probe, args=(n,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    late = [end - killed for began, end, done in asks if end > killed and (not done or end - began > 0.1)]
    return {
        "failed": sum(not done for _, _, done in asks),
        "slowest": max(end - began for began, end, _ in asks),
        "last slow or failed answer after": max(late, default=0.0),
    }


def every_key(cluster, keys=2000, workers=20):
    """Seconds from the kill of one node until each of `keys` was written once more."""
    cluster.processes[cluster.leader()].send_signal(signal.SIGKILL)
    killed, failed = time.monotonic(), []

    def write(first):
        connection = http.client.HTTPConnection("127.0.0.1", cluster.http[0], timeout=10)
        for n in range(first, keys, workers):
            connection.request("PUT", f"/v1/kv/bench-{n}", b"after %d" % n)
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 201, 204):
                failed.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=write, args=(first,)) for first in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - killed, len(failed)


def clear():
    """The next cluster starts without any data."""
    shutil.rmtree(HOME)
    os.makedirs(HOME)


def main():
    figures = {kind: {"get": [], "put": []} for kind in WRK}
    for turn in range(ROUNDS):
        for kind, count, base in (("chordkv", 5, 21000), ("etcd", 3, 22000)):
            cluster = Cluster(kind, count, base + 200 * turn)
            try:
                for n in range(KEYS):
                    cluster.put(cluster.http[0], f"bench-{n}" if kind == "chordkv" else f"bench-{n:06}", b"0" * 100)
                for what in ("get", "put"):
                    figures[kind][what].append(wrk(cluster, what))
                print(kind, f"{kill(cluster)}", flush=True)
            finally:
                cluster.end()
        clear()
        if GARAGE:
            garage = Garage(24000 + 500 * turn)
            try:
                for n in range(KEYS):
                    garage.put(garage.http[0], f"bench-{n:06}", b"0" * 100)
                for what in ("get", "put"):
                    figures["garage"][what].append(wrk(garage, what))
            finally:
                garage.end()
            clear()
        cluster = Cluster("chordkv", 5, 23000 + 200 * turn)
        try:
            print("chordkv: every one of 2,000 keys written %.2f s after a kill, %d failed" % every_key(cluster), flush=True)
        finally:
            cluster.end()
        clear()
    for kind, said in figures.items():
        for what, rates in said.items():
            print(f"{kind} {what}: {statistics.median(rates):.0f}/s, of {[round(rate) for rate in rates]}")
    shutil.rmtree(HOME)


main()
