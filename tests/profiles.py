"""How much Hypothesis does: the same examples on every machine and in every run, without a clock."""

from hypothesis import Phase, settings

PROPERTY = settings(derandomize=True, deadline=None, database=None, max_examples=150)
"""For a property of one function."""

MACHINE = settings(
    PROPERTY, max_examples=150, stateful_step_count=40, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
"""For a state machine: so many runs of so many steps."""
