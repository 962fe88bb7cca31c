"""A trainer's module that cannot be imported."""

raise RuntimeError("boom")
