"""The paper's tables made anew on the toybox: trainings, scored cells, orderings compared, one page."""
