"""The training of triage: scans simulated on demand, added faults, one output per fault."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ptycho.io.atomic import atomic_write
from ptycho.io.tensors import write_tensors
from ptycho.models.onnx_nodes import import_onnx
from ptycho.models.triage import THRESHOLDS, USUAL
from ptycho.models.triage_onnx import write_triage_onnx
from ptycho.triage.batches import Frames, class_weights, draw_frames, draw_scans
from ptycho.triage.decision import thresholds_of_scans
from ptycho.triage.labels import FAULTS, LABELS
from ptycho.triage.precision import Judged, judge, lines_of
from ptycho.triage.sampling import distribution
from ptycho.triage.settings import TriageSettings
from ptycho_torch.learned import Task
from ptycho_torch.triage.network import CUT, TriageNetwork
from ptycho_torch.triage.running import network_of, tensors, two_looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: first words of the seeds: training, normalisation, evaluation, scans for the thresholds
_TRAIN, _NORMAL, _EVALUATE, _THRESHOLDS = 1, 3, 7, 11
#: photons of a frame in the evaluated scans, within the range of training
DOSES = (1e3, 1e4, 1e6)
_NORMAL_SCANS = 24
_BATCH = 512


class TriageTask(Task[TriageSettings]):
    """Triage as a task of the trainer; the best epoch has the highest mAP."""

    name = "triage"
    #: the shares of the sampled labels are logged only, with weight 0
    terms = {"cross_entropy": 1.0, **{f"share_{name}": 0.0 for name in LABELS}}
    monitor, mode = "val/mAP", "max"
    bar = ("train_loss", "val/mAP", "val/ap_module")

    def __init__(self, settings: TriageSettings) -> None:
        import_onnx()  # before the training: its export needs it
        super().__init__(settings)
        data = settings.data
        share = float(np.mean(data.bad_shares))
        weights = class_weights(share) if settings.class_weights else np.ones(len(FAULTS), np.float32)
        self.weights = torch.from_numpy(weights)
        self.judged: Judged | None = None
        self._evaluated: Frames | None = None
        self._epoch = -1

    def build(self) -> nn.Module:
        """The network; its numbers are normalised by separate scans."""
        network = TriageNetwork(self.settings.seed)
        data = self.settings.data
        some = draw_frames(self._seeds(_NORMAL, _NORMAL_SCANS), data.ranges(), data.bad_shares)
        network.mean.copy_(torch.from_numpy(some.numbers.mean(axis=0)))
        network.scale.copy_(torch.from_numpy(some.numbers.std(axis=0) + 1e-2))
        return network

    def _seeds(self, *words: int) -> list[tuple[int, ...]]:
        """Seeds of as many scans as the last word says."""
        return [(self.settings.seed, *words[:-1], k) for k in range(words[-1])]

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """`batch_size` frames of some scans."""
        frames = self._drawn(epoch, step)
        self._epoch = epoch
        names = ("frames", "around", "usual", "numbers", "noise")
        given = dict(zip(names, tensors(*frames[:5]), strict=True))
        return given | {"labels": torch.from_numpy(frames.labels.astype(np.float32))}

    def _drawn(self, epoch: int, step: int) -> Frames:
        data, wanted = self.settings.data, self.settings.batch_size
        parts: list[Frames] = []
        while sum(len(part.labels) for part in parts) < wanted:
            seed = (self.settings.seed, _TRAIN, epoch, step, len(parts))
            parts.append(draw_frames([seed], data.ranges(), data.bad_shares, repeats=data.repeats))
        return Frames(*(np.concatenate(column)[:wanted] for column in zip(*parts, strict=True)))

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean binary cross entropy of the faults, with higher weights for rare ones; and the share of frames
        with each label, so that the logs show the sampled data.
        """
        logits = network(*(batch[name] for name in ("frames", "around", "usual", "numbers", "noise")))
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, batch["labels"], pos_weight=self.weights.to(logits.device)
        )
        labels = batch["labels"]
        good = (labels.sum(dim=1) == 0).float().mean()
        shares = {f"share_{name}": labels[:, k].mean() for k, name in enumerate(FAULTS)}
        return {"cross_entropy": loss, "share_good": good, **shares}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Loss, mAP, and of every label its average precision, precision and recall at 0.5, and the share of
        frames that have it."""
        if self._evaluated is None:
            self._evaluated = self._evaluation_frames()
        frames = self._evaluated
        logits = logits_of(network, frames)
        truth = torch.from_numpy(frames.labels.astype(np.float32))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=self.weights)
        self.judged = judged = judge(torch.sigmoid(logits).numpy(), frames.labels)
        found = {"loss": float(loss), "mAP": judged.mean}
        for label in LABELS:
            found[f"ap_{label}"] = judged.average_precision[label]
            found[f"precision_{label}"] = judged.precision[label]
            found[f"recall_{label}"] = judged.recall[label]
        found |= {f"share_{name}": value for name, value in distribution(frames.labels).items()}
        return found

    def _evaluation_frames(self) -> Frames:
        """Scans of the standard doses within the range; if none lies within it, of the two ends."""
        data = self.settings.data
        low, high = data.photons
        doses = [dose for dose in DOSES if low <= dose <= high] or [low, high]
        parts = [
            draw_frames(
                self._seeds(_EVALUATE, k, data.evaluated_scans), data.ranges(dose), (0.1, 0.2), gains=False
            )
            for k, dose in enumerate(doses)
        ]
        return Frames(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        """The confusion matrix of the last evaluation; its numbers are written beside it, as text."""
        from ptycho_torch.triage.figures import confusion_figure

        if self.judged is None:
            return {}
        path = self.settings.output_dir / "figures" / f"confusion_{self._epoch + 1:03d}.txt"
        with atomic_write(path) as temporary:
            temporary.write_text("\n".join(lines_of(self.judged)) + "\n", encoding="utf-8")
        return {"confusion": confusion_figure(self.judged, f"frames called at 0.5, epoch {self._epoch + 1}")}

    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        """triage.safetensors, with thresholds above all good frames of further scans; ONNX; JSON."""
        data = self.settings.data
        weights = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        looked = network_of({**weights, THRESHOLDS: np.zeros(len(FAULTS), np.float32)}, self.name)
        probability, labels = [], []
        seeds = self._seeds(_THRESHOLDS, data.threshold_scans)
        for scan in draw_scans(seeds, data.ranges(), (0.0, 0.05)):
            probability.append(two_looks(looked, scan.measured, scan.positions_px, scan.gain))
            labels.append(scan.labels)
        weights[THRESHOLDS], weights[USUAL] = thresholds_of_scans(probability, labels)
        path = folder / "triage.safetensors"
        write_tensors(path, weights, {"tool": self.name})
        return [path, *write_triage_onnx(weights, folder, CUT)]


def logits_of(network: nn.Module, frames: Frames) -> Tensor:
    """Logits (B, faults), on the CPU, of any number of frames."""
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for begin in range(0, len(frames.labels), _BATCH):
            given = tensors(*(column[begin : begin + _BATCH] for column in frames[:5]))
            parts.append(network(*(one.to(device) for one in given)).cpu())
    return torch.cat(parts).clone()
