"""B1, torchdistill in its config-driven way: a YAML file, forward hooks, `DistillationBox`; the teacher looks live.

    uv run --group bench python -m benchmarks.baselines.torchdistill_script --work FOLDER --lambda 0.5 --threads 2

The loop is that of torchdistill's example for image classification, the images those of plain_script.py. Its frozen
teacher runs whole, classifier included, as its hooks ask. Not for: plain training (λ = 0), or teachers.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines.plain_script import EVALUATED_AT_ONCE, HIGH, LOW, Pictures, evaluate, frozen_teacher
from benchmarks.baselines.work import (
    TEACHER,
    Work,
    begin,
    done,
    parts,
    read_images,
    read_work,
    save_weights,
    script_arguments,
    student_start,
    warm_up,
)

CONFIG = Path(__file__).with_name("torchdistill.yaml")


def register_forward_procs() -> None:
    """Tell torchdistill which of a pair's sides each network sees."""
    from torchdistill.core.interfaces.registry import register_forward_proc_func

    @register_forward_proc_func
    def forward_low_res(
        model: nn.Module, sample_batch: list[Tensor], targets: Any = None, supp_dict: Any = None, **kwargs: Any
    ) -> Any:
        return model(sample_batch[0])

    @register_forward_proc_func
    def forward_high_res(
        model: nn.Module, sample_batch: list[Tensor], targets: Any = None, supp_dict: Any = None, **kwargs: Any
    ) -> Any:
        return model(sample_batch[1])


def train_config(work: Work, lambda_: float, feature_dim: int, images: int, epochs: int, loaders: int) -> Any:
    """What `DistillationBox` takes, from the YAML file and the work."""
    from torchdistill.common.yaml_util import load_yaml_file

    config = load_yaml_file(str(CONFIG))["train"]
    config["num_epochs"] = epochs
    config["train_data_loader"]["kwargs"] |= {
        "batch_size": work.batch_size,
        "num_workers": loaders,
        "persistent_workers": loaders > 0,
    }
    config["optimizer"]["kwargs"] |= {
        "lr": work.learning_rate,
        "momentum": work.momentum,
        "weight_decay": work.weight_decay,
    }
    steps = epochs * -(-images // work.batch_size)
    config["scheduler"]["kwargs"] |= {"max_lr": work.learning_rate, "total_steps": max(steps, 4) + 1}
    # λ · ½ · the sum over the feature dimension, of which MSELoss takes the mean.
    config["criterion"]["kwargs"]["sub_terms"]["features"]["weight"] = lambda_ * 0.5 * feature_dim
    return config


def train(box: Any, student: nn.Module, device: torch.device) -> list[dict[str, float]]:
    """Train to the end; for each epoch its loss, a mean over the images, and `val_accuracy`, a fraction."""
    from torchdistill.misc.log import MetricLogger

    history = []
    for epoch in range(box.num_epochs):
        logger = MetricLogger(delimiter="  ")
        box.pre_epoch_process(epoch=epoch)
        total, seen = 0.0, 0
        for sides, targets, supp_dict in logger.log_every(box.train_data_loader, 1000, f"Epoch: [{epoch}]"):
            sides, targets = [side.to(device) for side in sides], targets.to(device)
            loss = box.forward_process(sides, targets, supp_dict)
            box.post_forward_process(loss)
            logger.update(loss=loss.item())
            total, seen = total + loss.item() * len(targets), seen + len(targets)
        accuracy = evaluate(student, box.val_data_loader, device)
        history.append({"loss": total / seen, "val_accuracy": accuracy})
        box.post_epoch_process()
    return history


def run(given: argparse.Namespace) -> None:
    """Train the student that the arguments ask for."""
    from torchdistill.core.distillation import get_distillation_box

    logging.getLogger().setLevel(logging.WARNING)
    register_forward_procs()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    work, device, folder = read_work(given.work), torch.device(given.device), given.work
    student = work.network(student_start(folder, given.seed)).to(device)
    teacher = frozen_teacher(work, given.teacher or folder / TEACHER, device)
    datasets = {
        "train": Pictures(*read_images(folder, "train"), work, (LOW, HIGH), augment=True),
        "validation": Pictures(*read_images(folder, "validation"), work, (LOW,), augment=False),
    }
    warm_up(
        student,
        teacher,
        work,
        trained=parts(len(datasets["train"]), work.batch_size),
        evaluated=parts(len(datasets["validation"]), EVALUATED_AT_ONCE),
        layout=torch.contiguous_format,
    )
    config = train_config(
        work, given.lambda_, student.feature_dim, len(datasets["train"]), given.epochs or work.epochs, given.loaders
    )
    config["val_data_loader"]["requires_supp"] = False
    box = get_distillation_box(
        teacher, student, datasets, config, device, device_ids=None, distributed=False, lr_factor=1
    )
    begin(given.wait)
    started = time.perf_counter()
    history = train(box, student, device)
    if given.save is not None:
        save_weights(student, given.save)
    done(history, seconds=time.perf_counter() - started)


def main() -> None:
    """Read the arguments, and train."""
    run(script_arguments(__doc__).parse_args())


if __name__ == "__main__":
    main()
