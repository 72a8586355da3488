"""How well the codes of the beats tell their kinds apart.

python examples/figures_of_merit.py examples/embedding/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from experiments_manager import load_settings

SETTINGS = Path(__file__).with_name("mysettings_heartbeats.py")
PICTURE = "embedding.png"


def merit(run_dir):
    """The agreement of k-means with the kinds, by the code and by the beats as they come; 1 is perfect, 0 is chance."""
    codes, beats, kinds, _ = validation_set(run_dir)
    return {
        "ARI of k-means on the code": agreement(codes, kinds),
        "ARI of k-means on the beats themselves": agreement(beats[..., 0], kinds),
    }


def validation_set(run_dir):
    """Codes [n, width] by the best weights, disturbed beats [n, 128, 1], kinds [n] and their names."""
    settings = load_settings(SETTINGS)
    embeddings = max((run_dir / "logs" / "embeddings").glob("epoch-*/embeddings.npz"))
    codes = np.load(embeddings)["vectors/code"]
    beats, _ = settings.call("dataset", split="validation")
    _, kinds = settings.experiment_settings.read_beats("validation", settings.validation_data_dir)
    return codes, beats, kinds, settings.class_names


def agreement(points, kinds):
    """The adjusted Rand index of k-means, which is told how many kinds there are, with the kinds."""
    clusters = KMeans(len(np.unique(kinds)), n_init=10, random_state=0).fit_predict(points)
    return adjusted_rand_score(kinds, clusters)


def draw(run_dir, file):
    """Draws a beat of each kind as it comes, and all codes in the plane of their two principal components."""
    codes, beats, kinds, names = validation_set(run_dir)
    plane = PCA(2).fit_transform(codes)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=(1, 1.3))
    for kind, name in enumerate(names):
        left.plot(beats[kinds == kind][0, :, 0] - 2.5 * kind, lw=1)
        right.scatter(*plane[kinds == kind].T, s=6, label=name)
    left.set(title="a disturbed beat of each kind", xticks=[], yticks=[])
    right.set(title="codes", xlabel="first principal component", ylabel="second")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=90)
