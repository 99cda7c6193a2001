"""The sdist and the wheel, built from a clean copy of the repository: no network, and nothing from earlier builds.

`make dist` (`python -m tests.release.distributions dist`) leaves them in dist/.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def clean_copy(folder: Path) -> Path:
    """The files that are in the repository or could be committed."""
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():  # it may have been removed since the last commit
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build(source: Path, out: Path, *kinds: str) -> list[Path]:
    """Build a source tree in this environment. Without `kinds`, the sdist and the wheel that is built from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(out), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stdout + ran.stderr)
    return sorted(out.iterdir())


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as temporary:
        for path in build(clean_copy(Path(temporary)), Path(sys.argv[1])):
            print(path)
