"""mmtlib: Mutual Mean-Teaching (Ge, Chen, Li, ICLR 2020) for unsupervised domain adaptation in person re-ID."""

__version__ = "0.1.0"


class InputError(ValueError):
    """Something that the user gave cannot be used; the message says what was found, expected, and what to do."""
