"""The Ray cluster of a process of tests: prints its address, and lasts until standard input ends.

That ends also where the tests are killed, so that no process of Ray's outlives them. It has a single CPU: one trial at
a time, in one process, which imports torch once. Not for: tests of how a launch starts and stops Ray, which start
their own.
"""

import logging
import os
import sys
import tempfile


def main() -> None:
    # As a launch sets it for a Ray of its own; by default a worker group's end is noticed every two seconds.
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    import ray

    # A short path: Ray's sockets lie below it, and their names are bounded.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        context = ray.init(
            num_cpus=1,
            object_store_memory=100_000_000,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
        )
        print(context.address_info["gcs_address"], flush=True)  # noqa: T201
        sys.stdin.read()
        ray.shutdown()


if __name__ == "__main__":
    main()
