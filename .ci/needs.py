#!/usr/bin/env python3
"""Runs the tests that need something beyond the repository, by name, where it is there, and says which were left out and why.

Such a test is marked `#[ignore = "needs WHAT"]`. They are found in the sources, so that none is forgotten; a WHAT that this program has
no way to look for is an error. Ignored tests with another reason (measurements) are listed and not run. `--list` runs nothing.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
MARK = re.compile(r'#\[ignore = "([^"]+)"\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\(crate\))? )?fn (\w+)')


def succeeds(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def python_with(*modules):
    python = os.environ.get("RWKV_FORGE_PYTHON")
    return bool(python) and succeeds(python, "-c", "import " + ", ".join(modules))


def chromium():
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return bool(os.environ.get("CHROMIUM")) or any(shutil.which(name) for name in names)


def sparse_files():
    path = ROOT / "target" / f"sparse-{os.getpid()}"
    path.parent.mkdir(exist_ok=True)
    try:
        with open(path, "wb") as file:
            file.truncate(14 << 30)
        return path.stat().st_blocks * 512 < 1 << 20
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)


def may_mount():
    return os.geteuid() == 0 and succeeds("unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt")


def other_user():
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return os.geteuid() != 0 or succeeds(*other, "test", "-x", str(ROOT))


CONDITIONS = {
    "script, for a pseudo terminal": lambda: bool(shutil.which("script")) and succeeds("script", "-qec", "true", "/dev/null"),
    "the data beside the repository": lambda: (DATA / "checkpoints" / "small-rwkv7.pth").is_file(),
    "a Python with gguf and jinja2 in RWKV_FORGE_PYTHON": lambda: python_with("gguf", "jinja2"),
    "a Python with torch in RWKV_FORGE_PYTHON": lambda: python_with("torch"),
    "Chromium": chromium,
    "bash, zsh, fish": lambda: all(shutil.which(shell) for shell in ["bash", "zsh", "fish"]),
    "a file system with sparse files of 14 GiB": sparse_files,
    "root that may mount a file system": may_mount,
    "a user other than root, or root that may become one": other_user,
}


def test_targets():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    for package in metadata["packages"]:
        for target in package["targets"]:
            if "test" in target["kind"]:
                yield package["name"], target["name"], pathlib.Path(target["src_path"])


def ignored_tests():
    """(reason, package, target, name of the test) of every test with a reason for being ignored."""
    for package, target, main in test_targets():
        files = sorted(main.parent.rglob("*.rs")) if main.name == "main.rs" else [main]
        for file in files:
            parts = [] if file == main else list(file.relative_to(main.parent).with_suffix("").parts)
            module = "::".join(part for part in parts if part != "mod")
            for reason, name in MARK.findall(file.read_text()):
                yield reason, package, target, f"{module}::{name}" if module else name


def run(target, names):
    # The whole workspace, as the README's command has it: with one package alone features differ, and much would be compiled anew.
    command = ["cargo", "test", "--locked", "--workspace", "--no-fail-fast", "--test", target, "--", "--exact", "--ignored", *names]
    print("$", " ".join(command), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    # A name that no test has would leave nothing to fail.
    passed = sum(map(int, re.findall(r"^test result: ok\. (\d+) passed", done.stdout, re.MULTILINE)))
    return done.returncode == 0 and passed == len(names)


def main():
    groups = {}
    for reason, package, target, name in ignored_tests():
        groups.setdefault(reason, {}).setdefault(target, []).append((package, name))
    left_out, failed, ran = [], [], 0
    for reason, programs in sorted(groups.items()):
        what = reason.removeprefix("needs ")
        if what == reason:
            wanted = False
        elif what not in CONDITIONS:
            sys.exit(f".ci/needs.py does not know how to look for: {what}")
        else:
            wanted = CONDITIONS[what]()
        for target, tests in programs.items():
            named = [f"{package}: {name}" for package, name in tests]
            if not wanted:
                left_out.append((reason, named))
            elif "--list" in sys.argv:
                print(f"would run, {reason}: {', '.join(named)}")
            elif run(target, [name for _, name in tests]):
                ran += len(named)
            else:
                failed.append((reason, named))
    print(f"{ran} tests that need something ran")
    for title, entries in [("left out", left_out), ("FAILED", failed)]:
        for reason, named in entries:
            print(f"{title} ({reason}): {', '.join(named)}")
    # The programs of continuous integration have a browser: without one the pages would go unseen.
    if os.environ.get("CI") == "true" and not chromium():
        sys.exit("no Chromium: apt-get install -y --no-install-recommends chromium")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
