"""The showroom: named, real-looking subjects from openly licensed packages, shown in real places.

Subjects are furniture and household models (rendered from any side) and 3D emoji (one view each); places are
photographed panoramas and the toybox's scenes. Nothing of it is in the repository: `jedi showroom build`
reads the packages and renders cut-outs, from which training sets are composed.
"""
