"""Machines on one Linux host: each has its own address, processes, home, /tmp and sshd.

Namespaces make them, so that ``ray stop``, which ends every Ray it can see, sees one machine
alone, and that two machines may use the same ports. They end with the test, whatever ran there.
"""

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_ACCOUNT = pwd.getpwuid(os.getuid())
HOME, USER = _ACCOUNT.pw_dir, _ACCOUNT.pw_name
NETWORK = "198.18.77"  # set aside for tests of networks (RFC 2544), so nobody's office
_NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
_TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "unshare", "nsenter", "setpriv", "ip")
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

# Another root folder: this host's, but for what a machine has of its own.
_BOOT = """
set -e
read -r _
machine=$1 home=$2 name=$3
shift 3
hostname "$name"
mount --make-rprivate /
mkdir -p "$machine/root"
mount --rbind / "$machine/root"
mount -t proc proc "$machine/root/proc"
mount -t tmpfs tmpfs "$machine/root/run"
mkdir "$machine/root/run/sshd"
mount --bind "$machine/tmp" "$machine/root/tmp"
mount --bind "$machine/home" "$machine/root$home"
for path in "$@"; do
  mkdir -p "$machine/root$path"
  mount --rbind "$path" "$machine/root$path"
done
exec chroot "$machine/root" "$(command -v sshd)" -D -e -f "$home/.sshd/config"
"""


@dataclass(frozen=True)
class Machine:
    """One machine; ``pid`` is its first process, an sshd."""

    name: str
    address: str
    home: Path
    pid: int

    def run(self, command, timeout_s=120, **environment):
        """Run ``command`` as its user types it at a prompt there."""
        return subprocess.run(
            self.command(command, **environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def command(self, command, **environment):
        """Return the words that run ``command`` there."""
        variables = {
            "HOME": HOME,
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "USER": USER,
            **environment,
        }
        return [
            *("nsenter", "--target", str(self.pid), "--all", "--root", f"--wd={HOME}"),
            *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
            *("bash", "-c", command),
        ]

    def processes(self):
        """Return the command lines of everything that runs there, the sshd excepted."""
        lines = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                lines.append(shlex.join(process.cmdline()))
        return lines


def missing():
    """Say what this host lacks to make machines; empty when nothing."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool, path=_SEARCH) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    if os.geteuid() != 0:
        return "namespaces need root"
    tried = subprocess.run(
        ["unshare", *_NAMESPACES, "--fork", "ip", "link", "add", "probe0", "type", "veth"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@contextlib.contextmanager
def start_machines(folder, names, visible=()):
    """Start machines that reach each other, and log in to each other with one key.

    Parameters
    ----------
    folder : Path
        Holds their homes and temporary files.
    names : sequence of str
        Their names; the first has the address .1 and joins the others like a switch.
    visible : sequence of Path
        Folders of this host that must be seen at their place, under HOME or /tmp too; the Python
        that runs this test is.
    """
    folder = Path(folder)
    key = folder / "key"
    _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    paths = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, *visible)}
    # What lies elsewhere is seen anyway.
    covered = sorted(str(p) for p in paths if p.is_relative_to("/tmp") or p.is_relative_to(HOME))
    booted, machines = [], []
    try:
        for number, name in enumerate(names, start=1):
            address = f"{NETWORK}.{number}"
            home = _furnish(folder / name, address, key)
            boot = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # should this process be killed
                    *("unshare", *_NAMESPACES, "--fork", "--kill-child=SIGKILL"),
                    *("bash", "-c", _BOOT, "boot", folder / name, HOME, name, *covered),
                ],
                stdin=subprocess.PIPE,
                stderr=(folder / name / "sshd.log").open("w"),
                env={**os.environ, "PATH": _SEARCH},
            )
            booted.append(boot)
            machines.append(Machine(name, address, home, _first_child(boot)))
        _wire(machines)
        for boot in booted:
            boot.stdin.write(b"\n")
            boot.stdin.close()
        _wait_for_sshd(machines)
        yield machines
    finally:
        for boot in booted:
            boot.kill()
            boot.wait()


def _furnish(place, address, key):
    """Make the folders of one machine: who may log in, and how its sshd listens."""
    home = place / "home"
    for made in (home / ".ssh", home / ".sshd", place / "tmp"):
        made.mkdir(parents=True, mode=0o700)
    (place / "tmp").chmod(0o1777)
    (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    shutil.copy(key, home / ".ssh" / "id_ed25519")
    _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".sshd" / "host_key")
    (home / ".sshd" / "config").write_text(
        f"ListenAddress {address}\n"
        f"HostKey {HOME}/.sshd/host_key\n"
        f"AuthorizedKeysFile {HOME}/.ssh/authorized_keys\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "UsePAM no\n"
        "StrictModes no\n"
        "PidFile none\n"
        "LogLevel ERROR\n"
    )
    return home


def _first_child(boot, timeout_s=10.0):
    """Return the process that is number 1 in the machine's own table."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert boot.poll() is None
        if children := psutil.Process(boot.pid).children():
            return children[0].pid
        time.sleep(0.02)
    raise TimeoutError("unshare started nothing")


def _wire(machines):
    """Join the machines by a bridge in the first of them."""
    first, *others = machines
    _ip(first, "link", "set", "lo", "up")
    _ip(first, "link", "add", "lan", "type", "bridge")
    _ip(first, "addr", "add", f"{first.address}/24", "dev", "lan")
    _ip(first, "link", "set", "lan", "up")
    for number, machine in enumerate(others):
        port = f"port{number}"
        peer = ("peer", "name", port, "netns", str(first.pid))
        _ip(machine, "link", "add", "eth0", "type", "veth", *peer)
        _ip(first, "link", "set", port, "master", "lan", "up")
        _ip(machine, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        _ip(machine, "link", "set", "lo", "up")
        _ip(machine, "link", "set", "eth0", "up")
        # Machines have a way out, by which Ray finds their own address; this one leads nowhere.
        _ip(machine, "route", "add", "default", "via", first.address)


def _ip(machine, *words):
    # In the network of the machine, but in this process table, so that pids mean the same.
    _quietly("nsenter", "--target", machine.pid, "--net", "ip", *words)


def _wait_for_sshd(machines, timeout_s=15.0):
    first = machines[0]
    waiting = {machine.address for machine in machines}
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        for address in list(waiting):
            if first.run(f"exec 3<>/dev/tcp/{address}/22").returncode == 0:
                waiting.remove(address)
        time.sleep(0.1)
    if waiting:
        logs = [(machine.home.parent / "sshd.log").read_text() for machine in machines]
        raise TimeoutError(f"no sshd at {waiting}: {logs}")


def _quietly(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
