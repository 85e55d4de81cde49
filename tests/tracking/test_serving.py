"""MLflow's own server answers with the registered best student, as docs/mlflow.md says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfd_tune.predict import predict_files
from dfd_tune.tracking import Tracker
from dfd_tune.tracking.models import student_in
from tests.export.test_onnx_file import write_student
from tests.tracking.records import search_record, trial_record

START_SECONDS = 240


@pytest.mark.slow
def test_a_raw_image_over_http_gets_the_class_that_predict_says(tracker: Tracker, tmp_path: Path) -> None:
    file = write_student(tmp_path / "student.safetensors")
    address = tracker.register_best(
        search_record("served"), trial_record("7" * 16, epochs=1), *student_in(file), "served"
    )
    images = []
    for number, shape in enumerate([(20, 20, 3), (41, 60, 3)]):
        images.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(images[-1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "mlflow", "models", "serve", "-m", address, "--env-manager", "local", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *command, "--workers", "1"],
        env=os.environ
        | {
            "MLFLOW_TRACKING_URI": tracker.address,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "OMP_NUM_THREADS": "1",
            # The server starts its workers by name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        for image, expected in zip(images, predict_files(file, images), strict=True):
            (found,) = ask(port, image)
            assert found == pytest.approx(expected.probabilities, abs=1e-5)
            assert expected.classes[int(np.argmax(found))] == expected.top(1)[0][0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def ask(port: int, image: Path) -> list[list[float]]:
    body = json.dumps({"inputs": np.asarray(Image.open(image))[None].tolist()}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["predictions"]


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("the server does not answer")
