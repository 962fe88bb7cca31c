"""How much arithmetic a network is, so that searches that choose other widths can be compared."""


def multiply_adds(width: int, columns: int = 784, outputs: int = 10) -> int:
    """Of one example through columns-width-width-outputs, every column counted, of a sparse row too."""
    return columns * width + width * width + outputs * width
