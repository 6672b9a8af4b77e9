"""Every figure. A function takes and returns `ax`, or returns a figure of several panels.

`ax` says where to draw, None makes a figure. `results` are the dicts of `result.json`, `a`, `b` and `methods` names of
methods, `key` is mAP, top1, top5 or top10. Nothing here calls `plt.show`: a notebook shows a figure, with its alt text,
by `figures.show(figure, alt)`. All public names can be used from here; the common look is `figures.style`.
"""

from mmtlib.figures.ablations import differences_to, scores_against
from mmtlib.figures.animation import animate_maps, show_gif
from mmtlib.figures.curves import (
    gap_shares,
    label_quality_curves,
    learning_curves,
    memorisation_curves,
    method_bars,
    paired_differences,
)
from mmtlib.figures.flows import fate_alluvial
from mmtlib.figures.hover import can_hover, write_hover_page
from mmtlib.figures.maps import umap_map, umap_panels, umap_sequence
from mmtlib.figures.noise import (
    cause_bars,
    contingency_heatmap,
    entropy_scatter,
    image_groups,
    noise_curves,
    silhouette_histogram,
    size_histogram,
    transition_curves,
    worst_merges,
    worst_splits,
)
from mmtlib.figures.phases import phase_diagram
from mmtlib.figures.pictures import (
    camera_pair_matrix,
    distance_histogram,
    image_grid,
    ranked_gallery,
    triplet_target_histogram,
)
from mmtlib.figures.style import METHOD_STYLE, PALETTE, show, use_style
