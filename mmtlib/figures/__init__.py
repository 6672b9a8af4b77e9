"""Every figure. A function takes and returns `ax`, or returns a figure of several panels.

`ax` says where to draw, None makes a figure. `results` are the dicts of `result.json`, `a`, `b` and `methods` names of
methods, `key` is mAP, top1, top5 or top10. Nothing here calls `plt.show`: a notebook shows a figure, with its alt text,
by `figures.show(figure, alt)`. All public names can be used from here; the common look is `figures.style`.
"""

from mmtlib.figures.comparisons import (
    differences_to,
    errors_left,
    method_bars,
    paired_differences,
    phase_diagram,
    validator_regrets,
)
from mmtlib.figures.curves import label_quality_curves, learning_curves, memorisation_curves, scores_against
from mmtlib.figures.flows import fate_alluvial
from mmtlib.figures.histograms import (
    distance_histogram,
    silhouette_histogram,
    size_histogram,
    triplet_target_histogram,
)
from mmtlib.figures.hover import can_hover, write_hover_page
from mmtlib.figures.maps import animate_maps, show_gif, umap_map, umap_panels, umap_sequence
from mmtlib.figures.noise import (
    cause_bars,
    contingency_heatmap,
    entropy_scatter,
    heatmap,
    noise_curves,
    transition_curves,
)
from mmtlib.figures.pictures import (
    image_grid,
    image_groups,
    overlaid,
    ranked_gallery,
    similarity_pairs,
    worst_merges,
    worst_splits,
)
from mmtlib.figures.published import gap_shares, methods_by_year
from mmtlib.figures.schema import mmt_schema
from mmtlib.figures.style import METHOD_STYLE, PALETTE, show, use_style
