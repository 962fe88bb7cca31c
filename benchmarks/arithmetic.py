"""How much arithmetic a network is, so that searches that choose other widths can be compared."""


def multiply_adds(width: int) -> int:
    """Of one image through 784-width-width-10."""
    return 784 * width + width * width + 10 * width
