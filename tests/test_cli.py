"""Bad input through the real command line: one sentence a problem, exit code 2, no traceback, nothing left behind."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

LAUNCH = ("launch", "--space", "lambda_grid", "--dataset", "digits")


def refusals(process, count=1):
    """The sentences of a refused command."""
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == count, lines
    for line in lines:
        assert line.startswith("dfd-tune: ")
        assert line.endswith((".", "?"))
    return process.stderr


@pytest.fixture
def launched(run_cli, ray_variables):
    """`run_cli` on the Ray of all tests: some are refused only once a Ray of their own would have begun to start."""
    return partial(run_cli, **ray_variables)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("launch", "--space", "lamda_grid"), "Did you mean 'lambda_grid'?"),
        ((*LAUNCH, "--dataset", "digit"), "Did you mean 'digits'?"),
        ((*LAUNCH, "--set", "epoch=3"), "Did you mean 'epochs'?"),
        ((*LAUNCH, "--set", "backbone=resnet"), "did you mean resnet18?"),
        ((*LAUNCH, "--set", "width=0"), "width is 0, but must be a number above 0 and at most 4"),
        ((*LAUNCH, "--set", "epochs=many"), "epochs is 'many', but must be a whole number"),
        ((*LAUNCH, "--set", "epochs"), "must be key=value"),
        ((*LAUNCH, "--set", "lambda_=[]"), "lambda_ has an empty list"),
        ((*LAUNCH, "--name", "../elsewhere"), "--name is '../elsewhere'"),
        ((*LAUNCH, "--name", "a/b"), "--name is 'a/b'"),
        ((*LAUNCH, "--store", "/proc/nothing"), "can't be written"),
        ((*LAUNCH, "--store", "s3://bucket"), "name a prefix in it, as s3://bucket/dfd-tune"),
        ((*LAUNCH, "--store", "ftp://host/x"), "must be a folder or begin with s3://"),
        ((*LAUNCH, "--trials", "3"), "a grid runs each point"),
        ((*LAUNCH, "--colour"), "No such option"),
        ((*LAUNCH, "--batch-size", "3"), "It is a setting: --set batch_size=VALUE"),
        ((*LAUNCH, "--protocol", "papers"), "'papers' is not one of 'validation', 'paper'"),
        ((*LAUNCH, "--choose-by", "f1"), "'f1' is not one of 'accuracy', 'balanced_accuracy', 'macro_f1', 'loss'"),
        ((*LAUNCH, "--choose-by", "loss", "--protocol", "paper"), "the protocol paper chooses by accuracy"),
        ((*LAUNCH, "--confirm-seeds", "-1"), "-1 is not in the range 0<=x<=1000"),
        ((*LAUNCH, "--confirm-cells", "every"), "'every' is not one of 'best', 'all'"),
        ((*LAUNCH, "--controls", "longest"), "Unknown control 'longest'. Did you mean 'longer'?"),
        ((*LAUNCH, "--confirm-seeds", "0", "--controls", "longer"), "give --confirm-seeds at least 1"),
        ((*LAUNCH, "--protocol", "paper", "--confirm-seeds", "3"), "the protocol paper confirms nothing"),
        ((*LAUNCH, "--set", "method=kdd"), "did you mean kd?"),
        ((*LAUNCH, "--set", "frontend=vdsrr"), "did you mean vdsr?"),
        ((*LAUNCH, "--set", "frontend=vdsr", "--set", "resolution=5"), "take a resolution of at most 4"),
        ((*LAUNCH, "--set", "resolution=1/3"), "of 8 pixels that is no whole number of at least 2"),
        (
            (*LAUNCH, "--set", "backbone=vgg16", "--set", "method=fitnets", "--set", "hint_layer=block7"),
            "Unknown hint_layer of vgg16 'block7'. Did you mean",
        ),
        ((*LAUNCH, "--set", "teachers=[vgg]"), "--set: "),
        ((*LAUNCH, "--set", "jpeg_quality=0"), "jpeg_quality is 0, but must be a whole number at least 1"),
        (("report",), "Missing argument"),
        (("launch",), "Missing option '--space'"),
        (("lanch",), "Did you mean 'launch'?"),
        (("spaces", "nothing"), "Unknown space 'nothing'"),
        (("datasets", "digit"), "Did you mean 'digits'?"),
        (("datasets", "digits", "--set", "epochs=3"), "Unknown setting of a dataset 'epochs'"),
    ],
)
def test_a_slip_of_the_pen_gets_one_sentence(launched, tmp_path, arguments, expected):
    store = () if "--store" in arguments or arguments[0] not in ("launch", "datasets") else ("--store", tmp_path / "s")
    assert expected in refusals(launched(*arguments, *store))
    assert not (tmp_path / "s" / "searches").exists()


def test_several_problems_are_reported_together(run_process):
    arguments = ("--space", "grid", "--dataset", "digit", "--name", "a/b")
    assert "Unknown dataset" in refusals(run_process("launch", *arguments), count=3)


def test_a_malformed_space_names_line_and_column(run_cli, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sampler: grid\nexplore:\n  lambda_: [0, 1\n")
    assert f"{file}, line 4, column 1: this is no YAML" in refusals(run_cli("launch", "--space", file))
    file.write_text("explore:\n  lambda_: [0, -1]\n  widht: [1]\n")
    text = refusals(run_cli("launch", "--space", file), count=2)
    assert f"{file}, line 2: lambda_ has the value -1" in text
    assert f"{file}, line 3: Unknown setting 'widht'. Did you mean 'width'?" in text


def test_a_space_that_is_not_there(run_cli, tmp_path):
    assert "can't be read (No such file or directory)" in refusals(run_cli("launch", "--space", tmp_path / "none.yaml"))


def test_a_missing_folder_of_images(launched, tmp_path):
    arguments = (*LAUNCH, "--dataset", "folder", "--store", tmp_path / "store")
    assert "--data" in refusals(launched(*arguments))
    assert str(tmp_path / "none") in refusals(launched(*arguments, "--data", tmp_path / "none"))
    assert not (tmp_path / "store" / "searches").exists()


def test_an_unreadable_image_is_named(run_cli, tmp_path):
    for name in ("cat", "dog"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for number in range(5):
            Image.new("L", (8, 8), number * 40).save(folder / f"{number}.png")
    (tmp_path / "images" / "dog" / "broken.png").write_bytes(b"no image")
    arguments = (*LAUNCH, "--dataset", "folder", "--data", tmp_path / "images", "--store", tmp_path / "store")
    assert "broken.png (not an image)" in refusals(run_cli(*arguments))
    assert not list((tmp_path / "store").glob("datasets/*"))


def test_a_resolution_that_the_images_do_not_have(launched, tmp_path):
    arguments = (*LAUNCH, "--set", "resolution=8", "--store", tmp_path / "store")
    assert "resolution is 8, but must be below the image size of the dataset, 8 pixels" in refusals(
        launched(*arguments)
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "file:///tmp/mlruns", "gopher://x"])
def test_an_mlflow_address_that_refuses(run_cli, tmp_path, address):
    refused = refusals(run_cli(*LAUNCH, "--store", tmp_path / "store", "--mlflow-uri", address))
    assert address in refused
    assert not list((tmp_path / "store").glob("searches/*"))


def test_a_mat_file_that_is_no_svhn(run_cli, tmp_path):
    for name in ("train_32x32.mat", "test_32x32.mat"):
        (tmp_path / name).write_bytes(b"MATLAB? No.")
    arguments = (*LAUNCH, "--dataset", "svhn", "--data", tmp_path, "--store", tmp_path / "store")
    assert f"'{tmp_path / 'train_32x32.mat'}' can't be read as a file of SVHN" in refusals(run_cli(*arguments))
    assert not list((tmp_path / "store").glob("datasets/*"))


def test_svhn_labels_out_of_range(run_cli, tmp_path):
    pixels = np.zeros((32, 32, 3, 20), dtype=np.uint8)
    labels = np.arange(20, dtype=np.uint8).reshape(-1, 1) % 12
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(tmp_path / name, {"X": pixels, "y": labels})
    arguments = (*LAUNCH, "--dataset", "svhn", "--data", tmp_path, "--store", tmp_path / "store")
    assert "its labels must be 1 to 10, where 10 means 0, but there are 0, 11" in refusals(run_cli(*arguments))


def test_results_of_no_search(run_cli, tmp_path):
    assert "There is no store at" in refusals(run_cli("results", "x", "--store", tmp_path / "none"))
    assert "Unknown search 'x'" in refusals(run_cli("results", "x", "--store", tmp_path))
    assert "Unknown search '../x'" in refusals(run_cli("results", "../x", "--store", tmp_path))
    assert "Unknown search 'x'" in refusals(run_cli("ui", "x", "--store", tmp_path))
    assert "There is no store at" in refusals(run_cli("report", "x", "--store", tmp_path / "none"))
    assert "Unknown search 'x'" in refusals(run_cli("report", "x", "y", "x", "--store", tmp_path), count=2)


def test_predict_without_a_model(run_cli, tmp_path):
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    assert "Unknown search 'x'" in refusals(run_cli("predict", image, "--model", "x", "--store", tmp_path))
    file = tmp_path / "student.safetensors"
    assert str(file) in refusals(run_cli("predict", image, "--model", file))
    file.write_bytes(b"not a model")
    assert str(file) in refusals(run_cli("predict", image, "--model", file))


def test_show_config_shows_every_setting_and_its_origin_and_runs_nothing(run_cli, tmp_path):
    process = run_cli(*LAUNCH, "--show-config", "--set", "epochs=3", "--set", "backbone=vgg16", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in process.stdout.splitlines()[1:]}
    assert rows["epochs"] == "3 --set"
    assert rows["backbone"] == "vgg16 --set"
    assert rows["lambda_"] == "{0, 0.1, 0.2, 0.5, 1, 2, 5, 10} explored by space lambda_grid"
    assert rows["learning_rate"] == "0.05 dataset digits"
    assert rows["momentum"].startswith("0.9")
    assert rows["teacher_epochs"] == "3 as the student's"
    assert not list(tmp_path.iterdir())


def test_show_config_shows_the_embedded_dataset_and_what_is_trained_anew(run_cli, tmp_path):
    process = run_cli("launch", "--space", "lambda_grid", "--show-config", "--confirm-seeds", "2", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    lines = {" ".join(line.split()) for line in process.stdout.splitlines()}
    assert lines >= {
        "dataset letters default",
        "learning_rate 0.1 dataset letters",
        "confirm: seeds 2 command line",
        "confirm: cells best default",
        "confirm: controls half_longer space lambda_grid",
    }
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "sys.argv = ['dfd-tune', 'launch', '--help']\n"
        "from dfd_tune.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy', 'pyarrow', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("end", "expected"), [("sys.exit(3)", 3), ("sys.exit(0)", 0), ("sys.exit('why')", 1)])
def test_a_command_ends_as_python_does_but_takes_no_module_apart(end, expected):
    code = (
        "import atexit, sys, threading, time\n"
        "from dfd_tune.cli import entry\n"
        "class Apart:\n"
        "    def __del__(self): print('apart')\n"
        "held = Apart()\n"
        "def main():\n"
        "    atexit.register(print, 'at exit')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        f"    print('main'); {end}\n"
        "entry.main = main\n"
        "entry.process()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split("\n")) == (expected, ["main", "thread", "at exit", ""]), done.stderr


def test_what_main_does_not_expect_keeps_its_traceback():
    code = "from dfd_tune.cli import entry\ndef main(): raise ValueError('odd')\nentry.main = main\nentry.process()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_spaces_and_datasets_are_listed(run_cli, tmp_path):
    spaces = run_cli("spaces").stdout
    assert all(name in spaces for name in ("lambda_grid", "table1", "table2", "methods", "degradations", "tpe_all"))
    assert "explore:" in run_cli("spaces", "tpe_all").stdout
    datasets = run_cli("datasets").stdout
    assert all(name in datasets for name in ("digits", "letters", "cifar10", "svhn", "parquet", "folder"))


def test_a_dataset_is_prepared_ahead(run_cli, tmp_path):
    arguments = ("datasets", "digits", "--set", "train_images=60", "--store", tmp_path / "store")
    first = run_cli(*arguments)
    assert first.returncode == 0, first.stderr
    assert "48 / 12 / 359 training / validation / test images, 8×8×1, 10 classes" in first.stdout
    (card,) = (tmp_path / "store" / "datasets").glob("*/dataset.json")
    assert json.loads(card.read_text())
