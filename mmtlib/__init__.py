"""mmtlib: Mutual Mean-Teaching (Ge, Chen, Li, ICLR 2020) for unsupervised domain adaptation in person re-ID."""

__version__ = "0.1.0"
