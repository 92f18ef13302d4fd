"""Which commit of this project runs."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of the code, with ``+changes`` if files differ from it; ``unknown`` outside a git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside another project's checkout: not ours
        return git("describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+changes")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
