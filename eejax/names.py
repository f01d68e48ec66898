"""Misspelt names: how an error message suggests the right one."""

import difflib
from collections.abc import Iterable


def suggest(name: str, names: Iterable[str]) -> str:
    """Words the end of an error message about an unknown name.

    Args:
      name: the unknown name.
      names: the known ones; what follows a colon, as in ``"topk:FRACTION"``, is an argument and is
        not compared.

    Returns:
      A question that holds the nearest of ``names``, or nothing when none is near.

    Example:
      >>> suggest("wifi6", ["wifi", "lan"])
      "; did you mean 'wifi'?"
      >>> suggest("zlip", ["topk:FRACTION", "zlib", "zlib:LEVEL"])
      "; did you mean 'zlib' or 'zlib:LEVEL'?"
    """
    names = list(names)
    stems = [known.partition(":")[0] for known in names]
    near = difflib.get_close_matches(name, stems, 1, 0.5)
    found = [repr(known) for known, stem in zip(names, stems) if stem in near]
    return f"; did you mean {' or '.join(found)}?" if found else ""
