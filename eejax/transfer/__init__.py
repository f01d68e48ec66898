"""Knowledge transfer: what one model learns from another."""

from eejax.transfer.kd import kd, with_labels

__all__ = ["kd", "with_labels"]
