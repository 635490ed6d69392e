"""What a process has used so far, as Linux counts it."""

import os
import re
from pathlib import Path


def cpu_s(pid: int) -> float:
    """User and system time of the process and all of its threads; hundredths, as the kernel tells them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The largest resident set that it ever had."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"the kernel tells no peak of process {pid}")
    return int(found[1]) / 1024
