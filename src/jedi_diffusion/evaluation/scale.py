"""Image scores on a scale between known answers: 0 is another subject, 1 another true picture of the subject.

Raw cosines of different encoders, subjects and picture sizes do not compare; shares of the way from another
subject to the same one do. Letters: S subjects.
"""

from __future__ import annotations

import numpy as np

from jedi_diffusion.estimates import Estimate, bootstrap_means, normalised
from jedi_diffusion.evaluation.scoring import ORACLE, OTHER, Results, RowScores, column


def scaled_columns(results: Results) -> dict[str, dict[str, Estimate | None]]:
    """Return each row's scores by image column ("DINO", "MDINO"), compared with all photos but the inputs.

    (row - other) / (oracle - other), of means over subjects that count the same, whatever the averaging. None
    where a known answer is missing, or where not even their order is certain under the bootstrap.
    """
    rows = {row.name: row for row in results.rows}
    ends = column("", "others")
    names = [name.removesuffix(ends) for name in results.columns if name.endswith(ends)]
    return {row.name: {name: _scaled(row, rows, name) for name in names} for row in results.rows}


def _scaled(row: RowScores, rows: dict[str, RowScores], name: str) -> Estimate | None:
    if not {ORACLE, OTHER} <= rows.keys():
        return None
    title = column(name, "others")
    triples = [
        [each.subjects.get(subject, {}).get(title) for each in (row, rows[OTHER], rows[ORACLE])]
        for subject in row.subjects
    ]
    known = [triple for triple in triples if None not in triple]
    if not known:
        return None
    values, floor, ceiling = np.array(known, np.float64).T
    if bootstrap_means((ceiling - floor)[None]).min() <= 0:
        return None
    return normalised(values, floor, ceiling)
