"""`tasks.py COUNT SLOTS`: so many times `true`, by dask.distributed on this machine, with two workers."""

import subprocess
import sys
import time

from distributed import Client, LocalCluster


def run(_: int) -> int:
    """One task."""
    return subprocess.run(['true']).returncode


def main(count: int, slots: int) -> int:
    """0 if all succeeded."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=slots // 2, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        begun = time.perf_counter()
        statuses = client.gather(client.map(run, range(count), pure=False))
        print(f'tasks alone: {time.perf_counter() - begun:.3f} s', flush=True)
    return int(any(statuses) or len(statuses) != count)


if __name__ == '__main__':
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
