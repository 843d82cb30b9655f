"""Values for tests/metrics.rs, from scikit-learn, PyTorch and SciPy.

    pip install scikit-learn torch scipy
    python metrics.py > metrics.json

Class 5 has images that are never recognised, class 6 neither images nor answers. The calibration error is that of
https://github.com/gpleiss/temperature_scaling (15 bins), the temperature SciPy's bounded minimum of the loss, and the losses
are those of torch.nn.functional.cross_entropy in double precision.
"""

import json

import numpy as np
import scipy.optimize
import sklearn
import torch
from sklearn import metrics as m
from torch.nn import functional

CLASSES = 7
BINS = 15

random = np.random.default_rng(1)
labels = random.choice(6, size=240, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
logits = random.normal(0, 2, (240, CLASSES))
logits[np.arange(240), labels] += 2.5
logits[:, 5] -= 12
logits[:, 6] -= 15
logits = np.round(logits, 3).astype(np.float32)
z, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
predicted = logits.argmax(1)


def loss(temperature):
    return functional.cross_entropy(z / temperature, y).item()


def calibration(temperature):
    confidence, answers = functional.softmax(z / temperature, 1).max(1)
    right = answers.eq(y)
    edges = torch.linspace(0, 1, BINS + 1)
    error, bins = 0.0, []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = confidence.gt(low.item()) * confidence.le(high.item())
        count = int(inside.sum())
        bin = {"images": count, "confidence": 0.0, "accuracy": 0.0}
        if count:
            bin["confidence"], bin["accuracy"] = confidence[inside].mean().item(), right[inside].double().mean().item()
            error += abs(bin["confidence"] - bin["accuracy"]) * count / len(y)
        bins.append(bin)
    return {"expected_error": error, "confidence": confidence.mean().item(), "bins": bins}


every = list(range(CLASSES))
each = m.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
macro = m.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
temperature = scipy.optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}).x
print(
    json.dumps(
        {
            "sklearn": sklearn.__version__,
            "torch": torch.__version__.split("+")[0],
            "scipy": scipy.__version__,
            "logits": [[round(float(v), 3) for v in row] for row in logits],
            "labels": labels.tolist(),
            "accuracy": m.accuracy_score(labels, predicted),
            "top5": m.top_k_accuracy_score(labels, logits, k=5, labels=every),
            "loss": loss(1.0),
            "confusion": m.confusion_matrix(labels, predicted, labels=every).tolist(),
            "precision": each[0].tolist(),
            "recall": each[1].tolist(),
            "f1": each[2].tolist(),
            "support": each[3].tolist(),
            "macro": {"precision": macro[0], "recall": macro[1], "f1": macro[2]},
            "calibration": calibration(1.0),
            "temperature": temperature,
            "scaled_loss": loss(temperature),
            "scaled_calibration": calibration(temperature),
        }
    )
)
