"""What a host has, as one JSON object. Runs on any Python 3, with nothing installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

wanted = json.loads(sys.argv[1])


def free():
    """Bytes free where the first folder lies, or will lie."""
    place = Path((wanted["folders"] or ["/"])[0])
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(str(place)).free


def gpus():
    """Accelerators with a driver that answers."""
    driver = shutil.which("nvidia-smi")
    if not wanted["gpus"] or not driver:
        return 0
    answer = subprocess.run([driver, "--list-gpus"], stdout=subprocess.PIPE)
    return len(answer.stdout.splitlines()) if answer.returncode == 0 else 0


def ready(folder):
    """Whether a folder is there, ours and ours alone."""
    path = Path(folder)
    if not path.is_dir():
        return False
    found = path.stat()
    return found.st_mode & 0o777 == 0o700 and found.st_uid == os.getuid()


found = {
    "python": "{}.{}.{}".format(*sys.version_info[:3]),
    "cpus": len(os.sched_getaffinity(0)),
    "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "disk": free(),
    "gpus": gpus(),
    "missing": [name for name in wanted["programs"] if not shutil.which(name)],
    "ready": [folder for folder in wanted["folders"] if ready(folder)],
}
sys.stdout.write(json.dumps(found) + "\n")
