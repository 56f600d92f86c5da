"""Pages as Chromium leaves them after it has run their scripts."""

import re
import shutil
import subprocess

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')

# Sets a mark on the page, wherever a browser would run it.
MARK = "document.documentElement.dataset.hostile=1"
SCRIPTS = [
    f"<script>{MARK}</script>",
    f"</script><script>{MARK}</script>",
    f"</script><img src=x onerror={MARK}>",
    f'"><svg onload={MARK}>',
    f"</title></style><svg/onload={MARK}>",
]


def without_policy(html):
    """Take away what forbids a browser scripts of others: escaping has to do alone."""
    bare, count = _POLICY.subn("", html)
    assert count == 1
    return bare


def rendered(html, folder):
    """Return the page after its scripts have run."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    page = folder / "page.html"
    page.write_text(html)
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'chromium'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ran(html, folder):
    """Whether a script of a hostile text ran, and whether our own did, which draws the plots."""
    dom = rendered(html, folder)
    (root,) = re.findall(r"<html[^>]*>", dom)[:1]
    return "data-hostile" in root, "js-plotly-plot" in dom
