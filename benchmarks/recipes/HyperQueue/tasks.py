"""`tasks.py COUNT SLOTS`: so many times `true`, by HyperQueue's server and one worker on this machine."""

import sys
import time
from pathlib import Path

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig


def main(count: int, slots: int) -> int:
    """0 if all succeeded."""
    with LocalCluster(str(Path('server').absolute()), WorkerConfig(cores=slots)) as cluster:
        client = cluster.client()
        begun = time.perf_counter()
        job = Job()
        for _ in range(count):
            job.program(['true'], stdout=None, stderr=None)
        has_succeeded = client.wait_for_jobs([client.submit(job)])
        print(f'tasks alone: {time.perf_counter() - begun:.3f} s', flush=True)
    return not has_succeeded


if __name__ == '__main__':
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
