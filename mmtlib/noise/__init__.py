"""Why pseudo labels are wrong: cluster by cluster, person by person, cause by cause; and the pages of `mmt noise`.

The measures of a whole labelling (purity, pairwise F1, label flow) are `mmtlib.label_noise`.
"""

from mmtlib.noise.causes import (
    Cause,
    brightness,
    false_merges,
    false_splits,
    merge_causes,
    read_attributes,
    split_causes,
)
from mmtlib.noise.clusters import camera_entropy, cluster_table, identity_table, silhouettes

__all__ = [
    "Cause",
    "brightness",
    "camera_entropy",
    "cluster_table",
    "false_merges",
    "false_splits",
    "identity_table",
    "merge_causes",
    "read_attributes",
    "silhouettes",
    "split_causes",
]
